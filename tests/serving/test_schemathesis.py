"""schemathesis over the server's description: no 5xx, and every response as described."""

from __future__ import annotations

import warnings

import live
import pytest
import schemathesis
from echo_model import make_engine
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

UPLOADS = ("/upload_image", "/ask", "/series", "/conversations/{conversation_id}/images")
PROTOCOL = ("/v1/chat/completions", "/v1/responses")
ADDRESSES, LINES = ("/images/dicomweb",), ("/jobs",)
# A schema cannot express "bytes that are an image, with as many frames as this", "a schema that an answer fits", "an
# address of an allowed server", nor "lines that are questions".
INEXPRESSIBLE = [positive_data_acceptance]
ANY_STRING = ("/v1/models/{name}",)


@schemathesis.serializer("application/x-ndjson")
def json_lines(_context, value):
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


@pytest.fixture(scope="module")
def described():
    with live.serving(make_engine()) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        rejected = schema.config.checks.negative_data_rejection
        rejected.expected_statuses = [*rejected.expected_statuses, 413]  # too large is refused before it is read
        yield schema


def operations():
    return [
        "POST /ask_question", "POST /ask_question/stream", "POST /ask_questions", "POST /ask", "POST /upload_image",
        "POST /series", "POST /images/dicomweb", "DELETE /images/{image_id}", "GET /images/{image_id}/picture",
        "GET /images/{image_id}", "GET /images/{image_id}/view", "GET /images/{image_id}/values",
        "GET /images/{image_id}/questions", "POST /images/{image_id}/dicom_report",
        "GET /model", "GET /examples", "GET /examples/{example_id}/image",
        "GET /healthz", "GET /readyz", "GET /v1/models", "GET /v1/models/{name}",
        "POST /v1/chat/completions", "POST /v1/responses",
        "POST /conversations", "GET /conversations/{conversation_id}", "POST /conversations/{conversation_id}/images",
        "POST /conversations/{conversation_id}/stored", "POST /conversations/{conversation_id}/questions",
        "DELETE /conversations/{conversation_id}/images/{image_id}/questions/{key}",
        "POST /conversations/{conversation_id}/ratings", "PUT /conversations/{conversation_id}/draft",
        "DELETE /conversations/{conversation_id}/images/{image_id}",
        "POST /conversations/{conversation_id}/images/{image_id}/dicom_report",
        "GET /models", "PUT /models/{name}", "POST /models/{name}/fraction", "DELETE /models/{name}",
        "POST /jobs", "GET /jobs", "GET /jobs/{job_id}", "GET /jobs/{job_id}/output", "DELETE /jobs/{job_id}",
    ]  # fmt: skip


def test_every_operation_is_tested(described):
    described_operations = [f"{o.ok().method.upper()} {o.ok().path}" for o in described.get_all_operations()]
    assert sorted(described_operations) == sorted(operations())


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("operation", operations())
def test_the_server_keeps_to_its_description(described, operation, mode):
    method, path = operation.split()
    tested = described[path][method]
    generation = schemathesis.GenerationMode(mode)
    if mode == "negative" and (path in ANY_STRING or not (tested.body or tested.path_parameters)):
        pytest.skip("has no input that could be wrong")

    @settings(
        max_examples=25, deadline=None, database=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=tested.as_strategy(generation_mode=generation))
    def check(case):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path in UPLOADS and mode == "positive":
                if path == "/series":
                    case.body["files"] = [live.png()]
                else:
                    case.body["image_file"] = live.png()
            case.call_and_validate(
                excluded_checks=INEXPRESSIBLE if path in (*UPLOADS, *PROTOCOL, *ADDRESSES, *LINES) else []
            )

    check()
