"""Walks the structure of a tagged PDF: what each page marks, what the tree reaches, and whether both agree."""

from __future__ import annotations

from collections.abc import Iterator

import pikepdf
from pikepdf import Array, Dictionary, Name


def elements(pdf: pikepdf.Pdf) -> Iterator[pikepdf.Object]:
    """Every structure element that the root reaches, in reading order."""
    waiting = [pdf.Root.StructTreeRoot.K]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Array):
            waiting.extend(reversed(list(item)))
        elif isinstance(item, Dictionary) and Name.S in item:
            yield item
            waiting.append(item.get(Name.K, Array()))


def kids(element: pikepdf.Object) -> list[pikepdf.Object]:
    """What an element holds: elements, references of annotations, and numbers of marked content."""
    held = element.get(Name.K, Array())
    return list(held) if isinstance(held, Array) else [held]


def leaves(tree: pikepdf.Object, name: str) -> Iterator[tuple[pikepdf.Object, pikepdf.Object]]:
    """Keys and values of a name or number tree, which must lie within the limits of their leaf."""
    for kid in tree.get("/Kids", []):
        pairs = list(leaves(kid, name))
        if pairs:
            assert (kid.Limits[0], kid.Limits[1]) == (pairs[0][0], pairs[-1][0])
        yield from pairs
    flat = list(tree.get(name, []))
    yield from zip(flat[::2], flat[1::2], strict=True)


def check_structure(pdf: pikepdf.Pdf) -> int:
    """Assert that pages, tree and parent tree agree on every piece of marked content; return how many there are."""
    parents = list(leaves(pdf.Root.StructTreeRoot.ParentTree, "/Nums"))
    keys = [int(key) for key, _ in parents]
    assert keys == sorted(set(keys)), "keys are unique, in their order"
    assert int(pdf.Root.StructTreeRoot.ParentTreeNextKey) > keys[-1]
    of_key = dict(zip(keys, (value for _, value in parents), strict=True))

    # What the tree reaches, by page
    page_number = {page.obj.objgen: number for number, page in enumerate(pdf.pages)}
    reached: dict[tuple[int, int], tuple[int, int]] = {}
    for element in elements(pdf):
        for kid in kids(element):
            if isinstance(kid, Dictionary):
                assert Name.S not in kid or kid.P.objgen == element.objgen, "a kid names its parent"
                if kid.get("/Type") == Name.OBJR:
                    assert of_key.pop(int(kid.Obj.StructParent)).objgen == element.objgen
            else:
                place = page_number[element.Pg.objgen], int(kid)
                assert place not in reached, "marked content belongs to one element"
                reached[place] = element.objgen
        if element.S == "/TH":
            within = element.P.P.S
            assert element.A.Scope == (Name.Column if within == "/THead" else Name.Row), "a header has its scope"

    # What the pages mark
    for number, page in enumerate(pdf.pages):
        row = of_key.pop(int(page.obj.StructParents))
        marked = [
            int(operands[1].MCID)
            for operands, operator in pikepdf.parse_content_stream(page)
            if str(operator) == "BDC" and isinstance(operands[1], Dictionary) and "/MCID" in operands[1]
        ]
        assert sorted(marked) == [mcid for mcid, element in enumerate(row) if element is not None], f"page {number + 1}"
        for mcid in marked:
            assert reached[number, mcid] == row[mcid].objgen, f"page {number + 1}, content {mcid}"
    assert not of_key, "nothing but pages and annotations has a key"
    return len(reached)


def targets(pdf: pikepdf.Pdf) -> dict[str, int]:
    """The page, from 0, of every named destination."""
    page_number = {page.obj.objgen: number for number, page in enumerate(pdf.pages)}
    return {str(name): page_number[place[0].objgen] for name, place in leaves(pdf.Root.Names.Dests, "/Names")}
