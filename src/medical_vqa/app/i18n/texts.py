"""The page's texts in the language of its visitor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Literal

from medical_vqa.app.i18n import chinese, english

Language = Literal["en", "zh"]
LANGUAGES: Mapping[Language, str] = {"en": "English", "zh": "中文"}
_TEXTS: Mapping[Language, Mapping[str, str]] = {"en": english.TEXTS, "zh": chinese.TEXTS}


@dataclass(frozen=True, slots=True)
class Texts:
    """The page's texts in one language: ``texts("frame_of", number=3, frames=20)``."""

    language: Language
    """Language of the texts."""

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key with its placeholders filled in."""
        return _TEXTS[self.language][key].format(**values)

    def reason(self, code: str | None, arguments: Mapping[str, str], sentence: str | None) -> str:
        """Why a model abstains.

        Args:
            code: Code of the reason, as the backend sent it.
            arguments: Values that the reason names.
            sentence: The backend's own sentence, in English.

        Returns:
            The reason in this language; the backend's sentence for a code that this page does not know.
        """
        key = f"reason_{code}"
        if key not in english.TEXTS or (code == "question_scope" and self.language == "en"):
            return sentence or self("abstained_text")
        values = {name: self.name(value) for name, value in arguments.items()}
        if placeholders_of(english.TEXTS[key]) - values.keys():
            return sentence or self("abstained_text")
        return self(key, **values)

    def abstained(self, code: str | None) -> str:
        """Heading of an abstention: "Not sure" where the confidence is low, otherwise "No answer"."""
        return self(
            "abstained" if code in (None, "low_confidence", "never_sure_enough", "question_scope") else "no_answer"
        )

    def name(self, text: str) -> str:
        """An organ, a finding or another value of the backend in this language; unchanged where it is not known."""
        if self.language == "en":
            return text
        known = chinese.NAMES.get(text.lower())
        return known if known is not None else text.replace("' and '", "'和'")

    def failure(self, code: str) -> str:
        """What went wrong and what to do, for a failure code of the client."""
        return self(f"failure_{code}")

    def duration(self, seconds: float) -> str:
        """A duration in minutes, from two hours on in hours."""
        minutes = max(1, round(seconds / 60))
        return self("hours", n=round(minutes / 60)) if minutes >= 120 else self("minutes", n=minutes)


def placeholders_of(text: str) -> set[str]:
    """Names of the values that a text takes."""
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def language_of(locale: str | None) -> Language:
    """The page's language for a browser's locale; English for everything that is not Chinese."""
    return "zh" if (locale or "").lower().startswith("zh") else "en"
