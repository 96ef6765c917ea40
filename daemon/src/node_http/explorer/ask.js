// Asking the node.

const API = "/api/v1";

/** What the node said instead of an answer. */
export class Refusal extends Error {
  constructor(code, message, hint) {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

/** Where the node answers this: the words of a path, and what to ask. */
export function address(path, query = {}) {
  const words = path.map((word) => encodeURIComponent(word)).join("/");
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined)).toString();
  return `${API}/${words}${asked ? `?${asked}` : ""}`;
}

/** The node's answer, or a Refusal. */
export async function ask(path, query) {
  let response;
  try {
    response = await fetch(address(path, query), { headers: { accept: "application/json" } });
  } catch {
    throw new Refusal("unreachable", "The node does not answer.", "see whether it runs; this page goes on by itself");
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer !== null) return answer;
  const message = answer?.message ?? `the node answered with status ${response.status}`;
  throw new Refusal(answer?.code ?? "internal", message, answer?.hint);
}

/** The answer, or null where there is none. */
export async function askIfKnown(path, query) {
  try {
    return await ask(path, query);
  } catch (error) {
    if (error instanceof Refusal && error.code === "not_found") return null;
    throw error;
  }
}
