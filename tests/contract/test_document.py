"""The contract as a document: valid OpenAPI, complete, and true to the surfaces."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from streamer import errors
from streamer.contract.operation import Surface
from streamer.contract.refusals import EVERY, name_of
from streamer.errors import Defect, Error, Limit, Quota, StoreUnfit
from streamer.openapi import SURFACES, document

REFUSING = [surface for surface in SURFACES if surface.refuse is not None]


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    return document()


def all_errors() -> set[type[Error]]:
    """Return every error that a caller may get."""

    def leaves(kind: type[Error]) -> set[type[Error]]:
        below = kind.__subclasses__()
        return {kind}.union(*map(leaves, below))

    # The two branches are never raised themselves. Errors of other modules, and of an
    # unsuitable store, end the process before the first request.
    found = leaves(Error) - {Error, errors.Rejected, errors.Unavailable, StoreUnfit}
    return {kind for kind in found if kind.__module__ == errors.__name__}


def test_the_document_is_valid_openapi_3_1(written: dict[str, Any]) -> None:
    assert written["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(written).validate()


def test_the_document_is_deterministic(written: dict[str, Any]) -> None:
    assert json.dumps(document()) == json.dumps(written)


def test_a_process_that_wrote_the_document_exits_cleanly() -> None:
    # msgspec (issue 717) may crash when it frees types with regular expressions; see
    # `operation.matching`. It does not always crash, so the test runs twice.
    for _ in range(2):
        program = "from streamer.openapi import document; document()"
        subprocess.run([sys.executable, "-c", program], check=True)


def test_the_document_has_every_surface(written: dict[str, Any]) -> None:
    surfaces = {"native", "rallyhere", "lootlocker", "gateway", "teak", "walletwerk"}
    named = {
        operation["operationId"].partition(".")[0]
        for item in written["paths"].values()
        for operation in item.values()
    }

    assert named == surfaces | {"operations", "contract", "client", "demo"}


def test_names_of_operations_are_unique() -> None:
    names = [f"{it.name}.{op.name}" for it in SURFACES for op in it.operations]
    assert len(set(names)) == len(names)


def test_every_segment_in_braces_is_a_declared_parameter() -> None:
    for surface in SURFACES:
        for operation in surface.operations:
            declared = {it.name for it in operation.parameters if it.where == "path"}
            in_path = {part[1:-1] for part in operation.path.split("/") if "{" in part}
            assert declared == in_path, operation.path


def test_links_name_operations_and_their_parameters() -> None:
    known = {f"{it.name}.{op.name}": op for it in SURFACES for op in it.operations}
    for operation in known.values():
        for answer in operation.responses:
            for link in answer.links:
                parameters = {it.name for it in known[link.operation].parameters}
                assert link.parameters.keys() <= parameters, link


def test_the_samples_have_one_of_every_error() -> None:
    assert {type(error) for error in EVERY} == all_errors()


@pytest.mark.parametrize("kind", [Defect, Limit, Quota])
def test_the_samples_have_one_of_every_kind(kind: Any) -> None:
    names = [name_of(error) for error in EVERY]
    for member in kind:
        assert any(name.endswith(f".{member.name}") for name in names), member


@pytest.mark.parametrize("surface", REFUSING, ids=lambda it: it.name)
def test_every_error_is_in_the_table_or_never_raised(
    surface: Surface,
) -> None:
    declared = {
        type(error) for op in surface.operations for error in op.refusals
    } & all_errors()
    never_raised = set(surface.never_raised)

    assert not declared & never_raised
    assert declared | never_raised == all_errors()


@pytest.mark.parametrize("surface", REFUSING, ids=lambda it: it.name)
def test_responses_of_the_tables_are_in_the_document(
    surface: Surface, written: dict[str, Any]
) -> None:
    for operation in surface.operations:
        item = written["paths"][operation.path]
        responses = item[operation.method.lower()]["responses"]
        for error in operation.refusals:
            assert surface.refuse is not None
            status = surface.refuse(error).status_code
            name = responses[str(status)]["$ref"].rpartition("/")[2]
            (content,) = written["components"]["responses"][name]["content"].values()
            assert name_of(error) in content["examples"]
