// What the page is given: data that it unpacks, the project's classes, colours and light, and the page's own elements.

export const THREE = globalThis.THREE;
export const $ = (id) => document.getElementById(id);
for (const kind of ["error", "unhandledrejection"])
  addEventListener(kind, (event) => { $("notice").textContent = `This page cannot show it: ${event.message ?? event.reason?.message}`; });

export async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const { meta, arrays } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const kinds = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float32: Float32Array, float64: Float64Array };
  const found = {};
  for (const [name, [kind, shape, offset]] of Object.entries(arrays)) {
    const data = new kinds[kind](buffer, 8 + length + offset, shape.reduce((a, b) => a * b, 1));
    found[name] = { data, shape };
  }
  return { meta, ...found };
}

export const scenery = await unpack($("scenery").textContent);
export const CLASSES = scenery.meta.classes, FREE = scenery.meta.free;
export const FLAT = CLASSES.map((_, label) => scenery.meta.flat.includes(label));
export const COLOURS = scenery.meta.colours, PALETTE = scenery.class_colours.data;
export const rgbs = CLASSES.map((_, label) => Array.from(PALETTE.subarray(3 * label, 3 * label + 3)));
export const css = (colour) => `rgb(${colour.join(",")})`;
