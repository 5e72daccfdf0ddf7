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
  alternatives: { answer: string; confidence: number }[];
  abstained: boolean;
  reason: string | null;
  reason_code: string | null;
  reason_arguments: Record<string, string>;
  suggestions: string[];
  source: "picture" | "usual" | "knowledge" | null;
  side: "patient" | "picture" | null;
  evidence: Evidence[];
  attention_map: { rows: number; columns: number; values: number[][] } | null;
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
  removed_metadata: string[];
  header_fields: Record<string, string>;
  burned_in_annotation: boolean | null;
  spacing: [number, number] | null;
  expires_in_seconds: number | null;
};

export type Turn = {
  /** Chosen by the page: a question sent twice under one key is asked once. */
  key: string;
  question: string;
  status: "pending" | "answered" | "failed";
  answer: Answer | null;
  failure: string | null;
  /** Milliseconds since the epoch. */
  asked_at: number;
};

export type Case = { image: UploadedImage; name: string; turns: Turn[]; draft: string };
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
  limits: { max_upload_bytes: number; formats: string[]; image_ttl_seconds: number | null };
};

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
  throw new Failure(body?.detail?.code ?? "internal", body?.detail?.message ?? response.statusText);
}

const json = (body: unknown): RequestInit => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

export const model = async (): Promise<ModelInfo> => (await request("/model")).json();
export const examples = async (): Promise<Examples> => (await request("/examples")).json();
export const createConversation = async (): Promise<Conversation> => (await request("/conversations", json({}))).json();
export const readConversation = async (id: string): Promise<Conversation> => (await request(`/conversations/${id}`)).json();

export async function addImage(id: string, file: Blob, name: string): Promise<Case> {
  const form = new FormData();
  form.append("image_file", file, name);
  form.append("name", name);
  return (await request(`/conversations/${id}/images`, { method: "POST", body: form })).json();
}

export async function askQuestion(id: string, imageId: string, turnKey: string, question: string): Promise<Turn> {
  const body = { image_id: imageId, key: turnKey, question };
  return (await request(`/conversations/${id}/questions`, json(body))).json();
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

export async function suggestedQuestions(imageId: string, language: string): Promise<string[]> {
  const response = await request(`/images/${imageId}/questions?language=${language}`);
  return (await response.json()).questions;
}

/** Calls `changed` with every new version of a conversation until the signal aborts; reconnects after a break. */
export async function follow(id: string, changed: (conversation: Conversation) => void, connected: (alive: boolean) => void, signal: AbortSignal): Promise<void> {
  let version = -1;
  while (!signal.aborted) {
    try {
      const response = await request(`/conversations/${id}?after=${version}`, { signal });
      const conversation: Conversation = await response.json();
      connected(true);
      if (conversation.version !== version) changed(conversation);
      version = conversation.version;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Failure && error.code === "unknown_conversation") throw error;
      connected(false);
      await new Promise((resolve) => setTimeout(resolve, 1500));
    }
  }
}
