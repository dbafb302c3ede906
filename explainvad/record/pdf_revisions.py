"""What an incremental update of a signed PDF changed, beyond what a further signature has to change.

Both states are compared object by object, as a reader of each sees them, so that it does not matter by which trick of
the cross-reference table an object was replaced. (pyHanko's own comparison takes minutes for a long tagged report.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pikepdf
from pikepdf import Dictionary, Name

_REFERENCE = re.compile(rb"(\d+) (\d+) R\b")
_MAY_CHANGE = {
    "catalog": {"/Extensions"},  # they name the kind of signature
    "form": {"/SigFlags"},
    "field": {"/V", "/AP", "/F"},
}


def foreign_changes(earlier: bytes, later: bytes) -> Iterator[str]:
    """Name what in ``later`` is not as it was in ``earlier``, its beginning, but for fields that were signed since."""
    with pikepdf.open(BytesIO(earlier)) as before, pikepdf.open(BytesIO(later)) as after:
        for key in ("/Root", "/Info", "/Encrypt"):
            if _reference(before.trailer, key) != _reference(after.trailer, key):
                yield f"the trailer names another {key}"
        roles = _roles(before, after)
        known: set[tuple[int, int]] = set()
        wanted: set[tuple[int, int]] = set()
        for old in before.objects:
            number = old.objgen
            known.add(number)
            old_text = _text(old)
            wanted.update((int(n), int(g)) for n, g in _REFERENCE.findall(old_text))
            new = after.get_object(number)
            if _is_same(old, old_text, new):
                continue
            allowed = _MAY_CHANGE.get(roles.get(number, ""))
            if allowed is None or not (isinstance(old, Dictionary) and isinstance(new, Dictionary)):
                yield f"object {number[0]}"
            else:
                changed = {key for key in {*old.keys(), *new.keys()} if _entry(old, key) != _entry(new, key)}
                yield from (f"{key} of object {number[0]}" for key in sorted(changed - allowed))
        # What was named before it existed would come into being only now
        for number in sorted(wanted - known):
            if after.get_object(number) is not None:
                yield f"object {number[0]}, which was missing"


def _roles(before: pikepdf.Pdf, after: pikepdf.Pdf) -> dict[tuple[int, int], str]:
    """Say of the objects that may change which they are: catalog, form, and fields that were signed since."""
    roles = {before.Root.objgen: "catalog"}
    form = before.Root.get(Name.AcroForm)
    if form is not None and form.is_indirect:
        roles[form.objgen] = "form"
        for field in form.get(Name.Fields, []):
            if field.get(Name.FT) == Name.Sig and Name.V not in field:
                signed = after.get_object(field.objgen).get(Name.V)
                if isinstance(signed, Dictionary) and Name.ByteRange in signed:
                    roles[field.objgen] = "field"
    return roles


def _is_same(old: Any, old_text: bytes, new: Any) -> bool:
    if isinstance(old, pikepdf.Stream) != isinstance(new, pikepdf.Stream) or _text(new) != old_text:
        return False
    return not isinstance(old, pikepdf.Stream) or old.read_raw_bytes() == new.read_raw_bytes()


def _text(value: Any) -> bytes:
    """Serialise an object without following its references; of a stream, the dictionary."""
    if isinstance(value, pikepdf.Stream):
        value = value.stream_dict
    return bytes(value.unparse(resolved=True)) if isinstance(value, pikepdf.Object) else repr(value).encode()


def _entry(dictionary: Any, key: str) -> bytes:
    value = dictionary.get(key)
    return bytes(value.unparse()) if isinstance(value, pikepdf.Object) else repr(value).encode()


def _reference(dictionary: Any, key: str) -> tuple[int, int] | None:
    value = dictionary.get(key)
    return value.objgen if isinstance(value, pikepdf.Object) and value.is_indirect else None
