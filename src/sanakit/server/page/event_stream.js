// Server-sent events out of a fetched body.
//
// EventSource can't send an Authorization header, so the few lines of its format are read here
// (https://html.spec.whatwg.org/multipage/server-sent-events.html).

/**
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<{event: string, data: string}>}
 */
export async function* readEvents(body) {
  let text = "";
  for await (const piece of decoded(body)) {
    text += piece;
    const blocks = text.split(/\r?\n\r?\n/);
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const event = readBlock(block);
      if (event) yield event;
    }
  }
}

/** @param {ReadableStream<Uint8Array>} body */
async function* decoded(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield decoder.decode(value, { stream: true });
    }
  } finally {
    await reader.cancel().catch(() => {}); // the connection may be gone already
  }
}

/**
 * @param {string} block the lines of one event
 * @returns {{event: string, data: string} | null} null for a comment, which only keeps the connection open
 */
function readBlock(block) {
  let event = "message";
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^([a-z]*): ?(.*)$/.exec(line) ?? [];
    if (field === "event") event = value;
    if (field === "data") data.push(value);
  }
  return data.length ? { event, data: data.join("\n") } : null;
}
