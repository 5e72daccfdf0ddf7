// Whether a question is about something that has a place in the picture.
import type { Answer } from "./api.ts";
import { wordingsOf } from "./i18n/index.ts";
import * as store from "./store.ts";

/** The model's localized entities that a question or its answer names, singular or plural. */
export function namesPlace(question: string, answer: Answer): boolean {
  const text = ` ${question} ${answer.abstained ? "" : answer.answer} `.toLowerCase();
  const entities = (store.model.value?.localization?.entities ?? []).map((entity) => entity.name);
  const names = entities.length ? entities : ["lung", "liver", "heart", "kidney", "spleen", "brain", "stomach", "bladder"];
  const organs = [...names, ...names.map((name) => name.replace(/^(left|right) /i, ""))];
  return organs.flatMap(wordingsOf).some((name) => (/^[\x20-\x7e]+$/.test(name) ? new RegExp(`\\b${name}(s|es)?\\b`).test(text) : text.includes(name)));
}

/** The attention map of an answer, where it is worth a look: outlines say it better, and a withheld answer has none. */
export const mapToShow = (question: string, answer: Answer): Answer["attention_map"] =>
  !answer.abstained && !answer.evidence.length && namesPlace(question, answer) ? answer.attention_map : null;
