"""Scores of other people's published answers, by the rule under which they were published.

The files are not part of this project; clone the two repositories at the commits named and give their folders::

    python benchmarks/published_answers.py HCP-MIC-at-ImageCLEF-VQA-Med-2020 FM_MedVQA

Writes ``benchmarks/results/published_answers.json``: each number next to the one that its authors published, or that
their evaluation script prints for the file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from medical_vqa import registry
from medical_vqa.evaluation.joining import join
from medical_vqa.evaluation.protocols.scoring import protocol_scores
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import Bootstrap

HCP_COMMIT = "4ce523ef35579df8eda4aa25455a9a9169947a69"
HCP_FOLDER = "BBN-BioBert-Inference"
FM_COMMIT = "5cc8f27b22827e00ea77fa1b793f600245a2f4cb"
FM_PUBLISHED = {  # what EVALUATION/quantitative_metrics/eval.py of FM_MedVQA prints for the file
    "open_exact": "36.5595", "open_f1": "35.2995", "open_precision": "36.5723", "open_recall": "35.0843",
    "bleu": "0.370876", "bleu1": "34.1544", "bleu2": "6.42414", "bleu3": "1.53853", "closed": "83.4108",
}  # fmt: skip
HCP_PUBLISHED = {"overall": "57.4000"}  # results/val/resnest-crop-retrieval/score.txt


def hcp_mic(folder: Path) -> tuple[list[Example], list[Prediction]]:
    """VQA-Med 2020, validation: the run of HCP-MIC and the references beside it."""
    rows = json.loads((folder / HCP_FOLDER / "data/valset.json").read_text())
    lines = (folder / HCP_FOLDER / "results/val/resnest-crop-retrieval/prediction.txt").read_text().splitlines()
    answers = dict(line.split("|") for line in lines)
    examples = [
        Example(f"vqa-med-2020/validation/{row['qid']}", row["image_name"], row["question"], (row["answer"],), "")
        for row in rows
    ]
    return examples, [Prediction(row.id, answers[Path(row.image_id).stem]) for row in examples]


def fm_medvqa(folder: Path) -> tuple[list[Example], list[Prediction]]:
    """PathVQA, test: TinyLLaVA fine-tuned; the file holds the references."""
    rows = json.loads((folder / "OUTPUTS_jsonl/tinyllava_test_pathvqa_finetune_pred.jsonl").read_text())
    examples = [
        Example(f"path-vqa/test/{n}", "", row["question"], (row["answer_gt"],), "", {"answer_type": row["answer_type"]})
        for n, row in enumerate(rows)
    ]
    return examples, [Prediction(example.id, row["answer_pred"]) for example, row in zip(examples, rows, strict=True)]


def computed(protocol: str, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
    """Each number of a protocol, per cent."""
    scores = protocol_scores(
        [registry.find("protocols", protocol)],
        join(examples, predictions),
        baseline=None,
        training_rows=(),
        bootstrap=Bootstrap(resamples=10),
    )
    return {score.metric: 100 * score.published.value for score in scores if score.published.value is not None}


def main() -> None:
    """Compute both and write them beside the published numbers."""
    hcp, fm = map(Path, sys.argv[1:3])
    cases = [
        ("haifangong/HCP-MIC-at-ImageCLEF-VQA-Med-2020", HCP_COMMIT, "vqa_med", hcp_mic(hcp), HCP_PUBLISHED),
        ("momot12/FM_MedVQA", FM_COMMIT, "llava_med", fm_medvqa(fm), FM_PUBLISHED),
    ]
    table = []
    for repository, commit, protocol, (examples, predictions), published in cases:
        values = computed(protocol, examples, predictions)
        for metric, text in published.items():
            digits = len(text.partition(".")[2])
            ours = f"{values[metric]:.{digits}f}"
            line = {"repository": repository, "commit": commit, "rows": len(examples), "rule": f"{protocol}.{metric}"}
            table.append({**line, "published": text, "computed": ours, "equal": ours == text})
            print(table[-1])
    path = Path(__file__).parent / "results" / "published_answers.json"
    path.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
