"""The empty signature fields of the cover: tagged, named, placed, and clean by the standards."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise
from pathlib import Path

import page
import pikepdf
import pytest
from pikepdf import Array, Dictionary, Name, Rectangle, String

from explainvad.report.signature_fields import MEANINGS, add_signature_fields, field_size, field_states


@pytest.mark.parametrize("profile", ["pdfa-3a", "pdfua-1"])
def test_a_report_with_empty_fields_is_archival_and_accessible(quiet_run: Path, profile: str) -> None:
    found = page.validate_pdf(quiet_run / "report.pdf", profile=profile)
    assert found.is_compliant, [failure.message for failure in found.failures]


def test_every_meaning_has_an_empty_field_in_reading_order(rendered: Path) -> None:
    content = (rendered / "report.pdf").read_bytes()
    assert field_states(content) == dict.fromkeys(MEANINGS, False)
    with pikepdf.open(BytesIO(content)) as pdf:
        fields = list(pdf.Root.AcroForm.Fields)
        places = [Rectangle(field.Rect) for field in fields]
        assert all(pdf.pages[0].obj == field.P for field in fields)
        assert "x-signature" not in str(list(pdf.pages[0].Annots))
    assert all(above.lly >= below.ury for above, below in pairwise(places))  # no overlap
    width, height = field_size(content, "approved")
    assert width > 200 and height > 30  # points: room for three lines


def test_each_field_is_a_form_element_whose_only_child_is_its_reference(rendered: Path) -> None:
    with pikepdf.open(rendered / "report.pdf") as pdf:
        elements = pikepdf.NumberTree(pdf.Root.StructTreeRoot.ParentTree)
        for field in pdf.Root.AcroForm.Fields:
            element = elements[int(field.StructParent)]
            assert (element.S, element.K.Type, element.K.Obj) == (Name.Form, Name.OBJR, field)
            assert str(element.Alt) == str(field.TU) == f"Signature: {MEANINGS[str(field.T)]}"
            assert element.P.S == Name.TD


def test_a_file_without_markers_gets_no_form_and_a_repeated_one_is_refused() -> None:
    with pikepdf.new() as pdf:
        pdf.add_blank_page()
        assert add_signature_fields(pdf) == []
        assert Name.AcroForm not in pdf.Root
        marker = {"/Subtype": Name.Link, "/A": Dictionary(URI=String("x-signature:x")), "/BS": Dictionary(W=0)}
        marker |= {"/Contents": String("x"), "/Rect": Array([0, 0, 10, 10])}
        pdf.pages[0].Annots = Array([pdf.make_indirect(Dictionary(marker)) for _ in range(2)])
        with pytest.raises(ValueError, match="field x has more than one place"):
            add_signature_fields(pdf)
