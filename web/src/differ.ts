// Whether a part of a picture is answered otherwise than the whole.
import type { Answer } from "./api.ts";

/** Whether two answers that are shown say different things; one that is withheld says nothing. */
export const differ = (one: Pick<Answer, "answer" | "abstained">, other: Pick<Answer, "answer" | "abstained">): boolean =>
  !one.abstained && !other.abstained && one.answer !== other.answer;
