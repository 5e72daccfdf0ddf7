"""Writes squad_v2.json: answers with the Exact Match and F1 that the SQuAD v2 rule gives them.

An independent reading of the published rule, letter by letter and without regular expressions, so that it
shares no line with the package. Source of the rule: the official evaluation script evaluate-v2.0.py of
Rajpurkar, Jia and Liang, "Know What You Don't Know: Unanswerable Questions for SQuAD" (ACL 2018), functions
``normalize_answer``, ``compute_exact``, ``compute_f1`` and ``get_raw_scores``:

* lower-case; delete the 32 ASCII punctuation characters; replace the words a, an, the by a blank, where a word
  is a maximal run of letters, digits and underscores; squeeze white space;
* exact: 1 if the normalized texts are equal; F1: words as multisets, 1 or 0 by equality where a side has none;
* accepted answers without words are ignored unless none has words, when the empty text stands for them; the
  best accepted answer counts.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

GOLDEN = Path(__file__).with_name("squad_v2.json")
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
ARTICLES = ("a", "an", "the")

CASES: list[tuple[str, list[str]]] = [
    ("lung", ["lung"]),
    ("Lung", ["lung"]),
    ("LUNG", ["Lung"]),
    ("the lung", ["lung"]),
    ("The Lung.", ["lung"]),
    ("lungs", ["lung"]),
    ("left lung", ["right lung"]),
    ("left lung", ["lung"]),
    ("lung", ["left lung"]),
    ("left lower lung", ["lower left lung"]),
    ("lung lung", ["lung"]),
    ("lung", ["lung lung lung"]),
    ("lung lung liver", ["lung liver liver"]),
    ("a a b", ["a b b"]),
    ("X-Ray", ["xray"]),
    ("X-Ray", ["X Ray"]),
    ("x ray", ["X-Ray"]),
    ("T2", ["t2"]),
    ("T2-weighted MRI", ["T2 weighted MRI"]),
    ("yes", ["Yes"]),
    ("yes", ["no"]),
    ("yes.", ["Yes"]),
    ("yes, it is", ["yes"]),
    ("Yes no", ["yes"]),
    ("", ["yes"]),
    ("", [""]),
    ("yes", [""]),
    ("...", ["yes"]),
    ("...", ["?!"]),
    ("the", ["a"]),
    ("the", ["an a the"]),
    ("the", [""]),
    ("a", ["lung"]),
    ("lung", ["the"]),
    ("an", ["...", "lung"]),
    ("the", ["a", "lung"]),
    ("lung", ["the", "lung"]),
    ("a.n", ["the"]),
    ("a.n apple", ["apple"]),
    ("thе lung", ["lung"]),
    ("theatre", ["atre"]),
    ("the_lung", ["thelung"]),
    ("a-lung", ["lung"]),
    ("a lung", ["alung"]),
    ("Liver, Heart, Spleen", ["liver heart spleen"]),
    ("Heart, Liver", ["Liver, Heart"]),
    ("Liver,Heart", ["Liver, Heart"]),
    ("肺", ["肺"]),
    ("左肺", ["肺"]),
    ("肺。", ["肺"]),
    ("心脏, 肝", ["心脏 肝"]),
    ("心脏,肝", ["心脏 肝"]),
    ("心脏、肝", ["心脏、肝"]),
    ("是", ["不是"]),
    ("Ａ", ["a"]),
    ("é", ["e"]),
    ("é", ["é"]),
    ("É", ["é"]),
    ("a\u0301 b", ["b"]),  # a letter with a combining accent: the accent is no word character
    ("ΣΊΣΥΦΟΣ", ["σίσυφος"]),
    ("İ", ["i\u0307"]),
    ("Straße", ["strasse"]),
    ("3 cm", ["3cm"]),
    ("3.5", ["35"]),
    ("-1", ["1"]),
    ("µ", ["μ"]),  # micro sign and Greek mu differ
    ("lung\u00a0cancer", ["lung cancer"]),
    ("lung\tcancer\n", ["lung cancer"]),
    ("  lung   cancer ", ["lung cancer"]),
    ("lung\u200bcancer", ["lungcancer"]),
    ("רֵאָה", ["רֵאָה"]),
    ("“lung”", ["lung"]),
    ('"lung"', ["lung"]),
    ("lung’s", ["lungs"]),
    ("lung's", ["lungs"]),
    ("pleural effusion", ["Pleural effusion", "effusion"]),
    ("effusion", ["pleural effusion", "Effusion"]),
    ("the left side of the lung", ["left side", "lung", "left lung"]),
    ("upper right", ["right upper lobe", "upper"]),
    ("1 2 3 4 5 6 7 8 9 10", ["1 3 5 7 9 11"]),
]


def normalized(text: str) -> str:
    bare = "".join(letter for letter in text.lower() if letter not in PUNCTUATION)
    runs: list[str] = []
    for letter in bare:
        word = letter.isalnum() or letter == "_"
        if runs and word and (runs[-1][-1].isalnum() or runs[-1][-1] == "_"):
            runs[-1] += letter
        else:
            runs.append(letter)
    return " ".join("".join(" " if run in ARTICLES else run for run in runs).split())


def f1(predicted: str, gold: str) -> float:
    ours, theirs = normalized(predicted).split(), normalized(gold).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum(min(ours.count(word), theirs.count(word)) for word in set(ours))
    return float(Fraction(2 * shared, len(ours) + len(theirs)))


def expected(predicted: str, golds: list[str]) -> dict[str, object]:
    counted = [gold for gold in golds if normalized(gold)] or [""]
    exact = max(float(normalized(predicted) == normalized(gold)) for gold in counted)
    return {
        "prediction": predicted,
        "gold": golds,
        "em": exact,
        "f1": max(f1(predicted, gold) for gold in counted),
    }


def golden_text() -> str:
    rows = [json.dumps(expected(predicted, golds), ensure_ascii=False) for predicted, golds in CASES]
    return "[\n" + ",\n".join(rows) + "\n]\n"


if __name__ == "__main__":
    GOLDEN.write_text(golden_text(), encoding="utf-8")
