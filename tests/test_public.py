"""What a user imports, and how light it is."""

import inspect
import subprocess
import sys

import pytest

import medical_vqa

FUNCTIONS = [
    "audit", "calibrate", "compare", "convert", "evaluate", "export",
    "judge", "leaderboard", "load", "load_recipe", "predict", "prepare", "probe", "referee", "report", "score", "train",
]  # fmt: skip
TYPES = [
    "Answer", "AttentionMap", "Audit", "Calibration", "Comparison", "Estimate", "Evaluation", "Examination",
    "Example", "Exported", "ImageView", "Judged", "Leaderboard",
    "MedicalVqaError", "Model", "Prediction", "Predictions", "PreparedDataset", "Recipe", "Report", "Scores",
    "TrainedRun", "WrittenProbe",
]  # fmt: skip


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_public_names_are_these_and_all_of_them_exist():
    assert medical_vqa.__all__ == TYPES + FUNCTIONS
    assert all(callable(getattr(medical_vqa, name)) for name in medical_vqa.__all__)
    assert {*medical_vqa.__all__, "__version__"} == set(dir(medical_vqa))
    assert medical_vqa.__version__


@pytest.mark.parametrize("name", TYPES + FUNCTIONS)
def test_every_public_name_is_documented(name):
    assert len(inspect.getdoc(getattr(medical_vqa, name))) > 20


@pytest.mark.parametrize("function", [getattr(medical_vqa, name) for name in FUNCTIONS] + [medical_vqa.Model.ask])
def test_a_public_function_documents_every_argument_its_result_its_errors_and_an_example(function):
    text = inspect.getdoc(function)
    arguments = text.partition("\nArgs:\n")[2].partition("\nReturns:\n")[0]
    documented = [line.strip().partition(":")[0] for line in arguments.splitlines() if line[4:5].strip()]
    assert documented == [name for name in inspect.signature(function).parameters if name != "self"]
    assert all(f"\n{section}:\n" in text for section in ("Returns", "Raises", "Examples"))


@pytest.mark.parametrize("name", [name for name in TYPES if name != "MedicalVqaError"])
def test_every_public_member_of_a_public_type_is_documented(name):
    members = vars(getattr(medical_vqa, name)).items()
    functions = {key: member for key, member in members if isinstance(member, property) or inspect.isfunction(member)}
    assert [key for key, member in functions.items() if not key.startswith("_") and not inspect.getdoc(member)] == []


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = medical_vqa.nothing


def test_importing_the_package_imports_neither_torch_nor_numpy():
    assert not loaded_after("import medical_vqa") & {"torch", "numpy", "pydantic", "PIL", "rich"}


def test_the_command_line_starts_without_anything_heavy():
    heavy = {"torch", "numpy", "pydantic", "PIL", "accelerate", "jinja2", "rich", "yaml"}
    assert not loaded_after("import medical_vqa.cli") & heavy


@pytest.mark.slow
def test_preparing_scoring_and_reporting_never_import_torch(root, run, tmp_path):
    predictions = run / "predictions-validation.jsonl"
    code = (
        "import medical_vqa as mv\n"
        f"mv.prepare('slake-mini', root={str(tmp_path)!r}, progress=False)\n"
        f"mv.score({str(predictions)!r})\n"
        f"mv.report({str(predictions)!r}, {str(tmp_path / 'report.html')!r})"
    )
    assert "torch" not in loaded_after(code)
