"""What a user imports, and how light it is."""

import subprocess
import sys

import pytest

import medical_vqa

PUBLIC = [
    "Example", "MedicalVqaError", "Prediction", "Recipe", "ask", "load_recipe", "predict", "prepare_dataset", "report",
    "score", "train",
]  # fmt: skip


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_public_names_are_these_and_all_of_them_exist():
    assert medical_vqa.__all__ == PUBLIC
    assert all(getattr(medical_vqa, name) is not None for name in PUBLIC)
    assert set(PUBLIC) < set(dir(medical_vqa))
    assert medical_vqa.__version__


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = medical_vqa.nothing


def test_importing_the_package_imports_neither_torch_nor_numpy():
    assert not loaded_after("import medical_vqa") & {"torch", "numpy", "pydantic", "PIL", "rich"}


def test_the_command_line_starts_without_anything_heavy():
    heavy = {"torch", "numpy", "pydantic", "PIL", "accelerate", "jinja2"}
    assert not loaded_after("import medical_vqa.cli") & heavy


def test_preparing_and_scoring_never_import_torch(root, run):
    code = (
        "from pathlib import Path\nfrom medical_vqa import pipelines\n"
        f"prepare_dataset('slake-mini', source=None, root=Path({str(root)!r}))\n"
        f"scored = score(Path({str(run / 'predictions-validation.jsonl')!r}))\n"
        "from medical_vqa.evaluation import report"
    )
    assert "torch" not in loaded_after(code)
