// The server's routes, with its wire types (docs/reference/http.md) and every failure as one `Failure`.

export type Evidence = {
  name: string;
  box: [number, number, number, number];
  polygon: { type: "MultiPolygon"; coordinates: [number, number][][][] };
  area: number;
  area_mm2: number | null;
  side: "patient" | "picture" | null;
  position: "left" | "middle" | "right";
  score: number;
};

export type Answer = {
  question: string;
  answer: string;
  confidence: number | null;
  /** Token probabilities, or the agreement of several answers. */
  confidence_basis?: "probability" | "agreement" | null;
  alternatives: { answer: string; confidence: number }[];
  abstained: boolean;
  /** Whether the text ended at the limit of tokens, and not by itself. */
  cut_off?: boolean;
  reason: string | null;
  reason_code: string | null;
  reason_arguments: Record<string, string>;
  suggestions: string[];
  source: "picture" | "usual" | "knowledge" | null;
  side: "patient" | "picture" | null;
  evidence: Evidence[];
  attention_map: { rows: number; columns: number; values: number[][] } | null;
  /** Of a series: the slices that were asked about, and the one that the evidence lies on. */
  frame?: number | null;
  plane?: Plane | null;
  slices?: { frame: number; plane: Plane; answer: string; confidence: number | null }[];
  model: { name: string; family: string; id: string };
  timings: { total_ms: number; batch_size: number };
  disclaimer: string;
};

export type UploadedImage = {
  image_id: string;
  width: number;
  height: number;
  format: string;
  frames: number;
  plane?: string | null;
  frame?: number;
  warnings?: string[];
  removed_metadata: string[];
  header_fields: Record<string, string>;
  burned_in_annotation: boolean | null;
  spacing: [number, number] | null;
  expires_in_seconds: number | null;
  /** Whether the server can write its answers as a DICOM report. */
  dicom_report?: boolean;
};

export type Plane = "axial" | "coronal" | "sagittal";
export type NamedWindow = { name: string; center: number; width: number; function?: "linear" | "sigmoid" };

/** What can be shown of a stored image or series. */
export type ImageItem = {
  image_id: string;
  series?: boolean;
  modality: string | null;
  body_part: string | null;
  planes: Partial<Record<Plane, number>>;
  plane: Plane;
  frame: number;
  spacing_mm: [number, number, number] | null;
  windows: NamedWindow[];
  window: NamedWindow | null;
  values: { low: number; high: number; unit: string | null } | null;
  /** The header's table of brightness: pairs of a value and the brightness from it on. */
  curve?: [number, number][] | null;
  inverted?: boolean;
  orientation: Partial<Record<Plane, string[]>>;
  notes: string[];
  warnings?: string[];
};

export type Region = { shape: "box" | "circle"; left: number; top: number; right: number; bottom: number };
export type Rating = { correct: boolean; correction: string };
/** The slice that a question is about. */
export type Slice = { frame: number; plane: Plane };

export type Turn = {
  /** Chosen by the page: a question sent twice under one key is asked once. */
  key: string;
  question: string;
  status: "pending" | "answered" | "failed";
  answer: Answer | null;
  failure: string | null;
  failure_message?: string | null;
  /** The answer while it is written. */
  text?: string | null;
  region?: Region | null;
  region_answer?: Answer | null;
  rating?: Rating | null;
  /** The window of the slice that was asked about, as CENTER,WIDTH. */
  window?: string | null;
  /** Which of several models was asked; null: the default one. */
  model?: string | null;
  /** Further pictures of the question. */
  other_image_ids?: string[];
  /** Milliseconds since the epoch. */
  asked_at: number;
};

export type Case = {
  image: UploadedImage;
  name: string;
  turns: Turn[];
  draft: string;
  /** Milliseconds since the epoch; null: it does not expire. */
  expires_at?: number | null;
};
export type Conversation = { id: string; version: number; cases: Case[]; expires_in_seconds: number | null };

export type ModelInfo = {
  name: string;
  family: string;
  id: string;
  data: Record<string, unknown>;
  facts: Record<string, unknown>;
  license: string;
  intended_use: string;
  has_attention_map: boolean;
  max_turns: number;
  max_pictures: number;
  streams: boolean;
  collects_ratings?: boolean;
  checkpoint_selection: { split?: string; scores?: Record<string, number> };
  refit_of?: { split?: string; images?: number; scores?: Record<string, number> };
  reliability?: Reliability[];
  localization?: { entities?: { name: string }[]; measured_on?: string };
  limits: { max_upload_bytes: number; formats: string[]; image_ttl_seconds: number | null };
};

/** Accuracy on one type of question, next to a baseline that never sees the image. */
export type Reliability = { name: string; kind: string; questions: number; accuracy: number; baseline_accuracy: number; above_baseline: boolean };

export type Examples = {
  examples: { id: string; image_path: string; caption: string; questions: string[]; answers: string[] }[];
  questions: string[];
  source: string;
};

/** A request that failed: the server's error code, or `unreachable`. */
export class Failure extends Error {
  constructor(readonly code: string, message: string) {
    super(message);
  }
}

let key = "";

/** The API key that is sent from here on; empty for a server without keys. */
export function useKey(value: string): void {
  key = value;
}

async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Failure("unreachable", String(error));
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  if (response.status === 405) throw new Failure("method_not_allowed", "");
  throw new Failure(body?.detail?.code ?? "internal", body?.detail?.message ?? response.statusText);
}

const json = (body: unknown): RequestInit => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

export const model = async (): Promise<ModelInfo> => (await request("/model")).json();
/** Names of the models that may be asked, the default one first; none where the server has one. */
export async function modelNames(): Promise<string[]> {
  try {
    const { models } = (await (await request("/models")).json()) as { models: { name: string; is_default: boolean; ready: boolean }[] };
    const ready = models.filter((one) => one.ready);
    return ready.length > 1 ? [...ready].sort((a, b) => Number(b.is_default) - Number(a.is_default)).map((one) => one.name) : [];
  } catch {
    return []; // an older server
  }
}
export const examples = async (): Promise<Examples> => (await request("/examples")).json();
export const createConversation = async (): Promise<Conversation> => (await request("/conversations", json({}))).json();
export const readConversation = async (id: string): Promise<Conversation> => (await request(`/conversations/${id}`)).json();

export async function addImage(id: string, file: Blob, name: string): Promise<Case> {
  const form = new FormData();
  form.append("image_file", file, name);
  form.append("name", name);
  return (await request(`/conversations/${id}/images`, { method: "POST", body: form })).json();
}

export async function askQuestion(id: string, imageId: string, turn: Turn, slice: Slice | null): Promise<Turn> {
  const body = { image_id: imageId, key: turn.key, question: turn.question, ...(turn.region ? { region: turn.region } : {}), ...(turn.model ? { model: turn.model } : {}), ...(turn.other_image_ids?.length ? { other_image_ids: turn.other_image_ids } : {}), ...(slice ?? {}), ...(slice && turn.window ? { window: turn.window } : {}) };
  return (await request(`/conversations/${id}/questions`, json(body))).json();
}

export async function cancelQuestion(id: string, imageId: string, key: string): Promise<void> {
  await request(`/conversations/${id}/images/${imageId}/questions/${key}`, { method: "DELETE" });
}

/** The answers about an image of a conversation as a DICOM report. */
export async function dicomReport(id: string, imageId: string): Promise<Blob> {
  return (await request(`/conversations/${id}/images/${imageId}/dicom_report`, json({}))).blob();
}

export async function rateAnswer(id: string, imageId: string, key: string, rating: Rating, keepPicture: boolean): Promise<void> {
  await request(`/conversations/${id}/ratings`, json({ image_id: imageId, key, ...rating, keep_picture: keepPicture }));
}

/** Uploads the files of one or more series; each series is then an image of the conversation. */
export async function addSeries(id: string, files: { file: Blob; name: string }[], name: string): Promise<{ cases: Case[]; leftOut: number }> {
  const form = new FormData();
  for (const { file, name: fileName } of files) form.append("files", file, fileName);
  return attachSeries(id, await (await request("/series", { method: "POST", body: form })).json(), name);
}

/** Retrieves a study, or one of its series, from the archive that the server names; each series is then an image of the conversation. */
export async function addStudy(id: string, study: string, series: string | null, name: string): Promise<{ cases: Case[]; leftOut: number }> {
  return attachSeries(id, await (await request("/images/dicomweb", json({ study, ...(series ? { series } : {}) }))).json(), name);
}

type SeriesUpload = { series: (ImageItem & { description?: string })[]; left_out?: unknown[] };

async function attachSeries(id: string, answer: SeriesUpload, name: string): Promise<{ cases: Case[]; leftOut: number }> {
  const items = answer.series;
  const cases: Case[] = [];
  for (const [index, item] of items.entries()) {
    const caption = [item.modality, item.body_part, item.description].filter(Boolean).join(", ") || name;
    const body = { image_id: item.image_id, name: items.length > 1 ? `${caption} ${index + 1}` : caption };
    cases.push(await (await request(`/conversations/${id}/stored`, json(body))).json());
  }
  return { cases, leftOut: answer.left_out?.length ?? 0 };
}

/** What can be shown of an image; null where the server does not say. */
export async function imageItem(imageId: string): Promise<ImageItem | null> {
  try {
    return await (await request(`/images/${imageId}`)).json();
  } catch (error) {
    if (error instanceof Failure && (error.code === "not_found" || error.code === "method_not_allowed")) return null;
    throw error;
  }
}

export const sliceValues = (imageId: string, slice: Slice): Promise<Response> => request(`/images/${imageId}/values?frame=${slice.frame}&plane=${slice.plane}`);
export const sliceView = async (imageId: string, slice: Slice): Promise<Blob> => (await request(`/images/${imageId}/view?frame=${slice.frame}&plane=${slice.plane}`)).blob();

const MOST_QUESTIONS = 32; // in one request

/** Questions about a picture that is not kept: for a batch. */
export async function askOnce(file: Blob, name: string, questions: string[]): Promise<Answer[]> {
  const form = new FormData();
  form.append("image_file", file, name);
  const image: UploadedImage = await (await request("/upload_image", { method: "POST", body: form })).json();
  try {
    const answers: Answer[] = [];
    for (let first = 0; first < questions.length; first += MOST_QUESTIONS) {
      const some = { image_id: image.image_id, questions: questions.slice(first, first + MOST_QUESTIONS) };
      answers.push(...(await (await request("/ask_questions", json(some))).json()).answers);
    }
    return answers;
  } finally {
    await request(`/images/${image.image_id}`, { method: "DELETE" }).catch(() => undefined);
  }
}

export async function saveDraft(id: string, imageId: string, draft: string): Promise<void> {
  await request(`/conversations/${id}/draft`, { ...json({ image_id: imageId, draft }), method: "PUT" });
}

export async function deleteImage(id: string, imageId: string): Promise<void> {
  await request(`/conversations/${id}/images/${imageId}`, { method: "DELETE" });
}

export async function pictureBlob(imageId: string): Promise<Blob> {
  return (await request(`/images/${imageId}/picture`)).blob();
}

/** The bytes of a picture that ships with the server. */
export const exampleBlob = async (path: string): Promise<Blob> => (await request(path)).blob();

export async function suggestedQuestions(imageId: string, language: string): Promise<string[]> {
  const response = await request(`/images/${imageId}/questions?language=${language}`);
  return (await response.json()).questions;
}

/** Calls `changed` with every new version of a conversation until the signal aborts; reconnects after a break. */
export async function follow(id: string, changed: (conversation: Conversation) => void, connected: (alive: boolean) => void, signal: AbortSignal): Promise<void> {
  let version = -1;
  const read = async (): Promise<Conversation> => (await request(`/conversations/${id}?after=${version}`, { signal })).json();
  let next = read();
  while (!signal.aborted) {
    try {
      const conversation = await next;
      const isNew = conversation.version !== version;
      version = conversation.version;
      next = read(); // before this version is drawn, so that the drawing delays no answer
      next.catch(() => undefined); // it is awaited in the next round
      connected(true);
      if (isNew) changed(conversation);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Failure && error.code === "unknown_conversation") throw error;
      connected(false);
      await new Promise((resolve) => setTimeout(resolve, 1500));
      next = read();
    }
  }
}
