// Why the model withholds an answer, worded by its code; the server's English sentence where a code is not known.
import { hasText, nameOf, t } from "./i18n/index.ts";
import type { Answer } from "./api.ts";

export function reasonText(answer: Pick<Answer, "reason_code" | "reason_arguments" | "reason">): string {
  const key = `reason.${answer.reason_code}`;
  if (!hasText(key)) return answer.reason ?? "";
  const values = Object.fromEntries(Object.entries(answer.reason_arguments).map(([name, value]) => [name, nameOf(value)]));
  const text = t(key, values);
  return /\{\w+\}/.test(text) ? (answer.reason ?? "") : text; // an argument of a newer server
}

/** The answer in words to copy or to print, with a note where its end is missing. */
export const answerText = (answer: Pick<Answer, "answer" | "cut_off">): string => (answer.cut_off ? `${answer.answer} (${t("turn.cut_off")})` : answer.answer);

/** Whether the confidence is too low for an answer, and not the question or the picture unsuitable. */
export const isUnsure = (answer: Answer): boolean => answer.abstained && [null, "low_confidence", "never_sure_enough"].includes(answer.reason_code);
