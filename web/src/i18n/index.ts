// The page's texts in the chosen language: t("viewer.millimeters", { n: 12 }).
import { computed, signal } from "@preact/signals";
import { en, type Key } from "./en.ts";
import { zh, zhNames } from "./zh.ts";

const TEXTS = { en, zh } as const;
/** What the server names in English, in lower case, in the other languages. */
const NAMES: Partial<Record<keyof typeof TEXTS, Record<string, string>>> = { zh: zhNames };
export type Language = keyof typeof TEXTS;
export const LANGUAGES = Object.entries(TEXTS).map(([code, texts]) => ({ code: code as Language, name: texts.name }));

const stored = localStorage.getItem("language");
const browser = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
export const language = signal<Language>(stored && stored in TEXTS ? (stored as Language) : browser);
const texts = computed<Record<Key, string>>(() => TEXTS[language.value]);

export function t(key: Key, values: Record<string, string | number> = {}): string {
  return (texts.value[key] as string).replace(/\{(\w+)\}/g, (placeholder, name) => String(values[name] ?? placeholder));
}

export const hasText = (key: string): key is Key => key in en;

/** An organ, a finding or another name of the server in the page's language; unchanged where it is not known. */
export const nameOf = (text: string): string => NAMES[language.value]?.[text.toLowerCase()] ?? text;

/** A caption such as "MRI, Brain_Tissue", part by part in the page's language. */
export const captionOf = (caption: string): string => {
  const parts = caption.split(", ");
  return parts.every((part) => /^[A-Z][\w -]*$/.test(part)) ? parts.map((part) => nameOf(part).replaceAll("_", " ")).join(language.value === "zh" ? "，" : ", ") : caption;
};

/** Everything that a name is called, in any language. */
export const wordingsOf = (name: string): string[] => [name.toLowerCase(), ...Object.values(NAMES).flatMap((names) => names[name.toLowerCase()] ?? [])];

/** A count with separators of thousands. */
export const number = (count: number): string => count.toLocaleString(language.value);

/** A duration in minutes, from two hours on in hours. */
export function duration(seconds: number): string {
  const minutes = Math.max(1, Math.round(seconds / 60));
  return minutes >= 120 ? t("hours", { n: Math.round(minutes / 60) }) : t("minutes", { n: minutes });
}

export function chooseLanguage(code: Language): void {
  localStorage.setItem("language", code);
  language.value = code;
  document.documentElement.lang = code === "zh" ? "zh-CN" : code;
}
