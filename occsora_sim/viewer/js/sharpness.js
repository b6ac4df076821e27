// How fine pictures are drawn: where too few of them come in a second, with fewer pixels until it stands still.

const ENOUGH = 24, LOOKED_AT = 12;  // pictures a second, and those that it is told by: half a second of them

export const sharpness = { finest: Math.min(devicePixelRatio, 1.5), coarsest: 0.5 };
sharpness.ratio = sharpness.finest;  // pixels drawn for each of the page, from the next picture on

const begun = [];  // [ms] times of the last pictures

export function sharpen(wanted) {
  sharpness.ratio = Math.min(Math.max(wanted, sharpness.coarsest), sharpness.finest);
  begun.length = 0;
}

// Takes note of a picture at `now` [ms] in a row of them. Returns how many come in a second, 0 if it is too early to say.
export function paced(now) {
  begun.push(now);
  if (begun.length > LOOKED_AT) begun.shift();
  if (begun.length < LOOKED_AT) return 0;
  const rate = 1000 * (LOOKED_AT - 1) / (now - begun[0]);
  if (rate < ENOUGH && sharpness.ratio > sharpness.coarsest) sharpen(sharpness.ratio * Math.max(0.6, Math.sqrt(rate / ENOUGH)));
  return rate;
}
