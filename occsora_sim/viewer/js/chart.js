// The terms of the score, the reward and the speed over time.
import { COLOURS, css } from "./scenery.js";

export function drawChart(view, seconds) {
  const { frames, meta } = view.recording, names = Object.keys(frames[frames.length - 1].terms);
  const canvas = view.part("canvas"), pen = canvas.getContext("2d"), left = 62, width = 250, row = 15, line = 37;
  const terms = names.filter((name) => name !== "reward"), curves = [["km/h", speeds(view.recording)]];
  if (names.includes("reward")) curves.push(["reward", frames.map((frame) => frame.terms.reward ?? 0)]);
  const ratio = 2, height = curves.length * line + terms.length * row;
  canvas.width = ratio * (left + width); canvas.height = ratio * height;
  canvas.style.width = `${left + width}px`; canvas.style.height = `${height}px`;
  pen.scale(ratio, ratio);
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  const x = (k) => left + Math.min(1, k * meta.frame_seconds / Math.max(seconds, 1e-6)) * width;
  let y = 0;
  for (const [name, values] of curves) {
    const low = Math.min(0, ...values), high = Math.max(1, ...values);
    pen.fillStyle = css(COLOURS.FAINT);
    pen.fillText(name, 0, y + line / 2 - 5);
    pen.fillText(`${low.toFixed(0)}–${high.toFixed(0)}`, 0, y + line / 2 + 7);
    pen.strokeStyle = css(COLOURS.BAR);
    pen.lineWidth = 1.5;
    pen.beginPath();
    values.forEach((value, k) => pen.lineTo(x(k), y + line - 4 - (value - low) / (high - low || 1) * (line - 8)));
    pen.stroke();
    y += line;
  }
  for (const name of terms) {
    pen.fillStyle = css(COLOURS.FAINT);
    pen.fillText(name, 0, y + row / 2);
    frames.forEach((frame, k) => {  // of 1 to 0: from good to bad
      const value = frame.terms[name] ?? 0;
      pen.fillStyle = css(value > 0.9 ? COLOURS.GOOD : value > 0.5 ? COLOURS.FAIR : COLOURS.BAD);
      pen.fillRect(x(Math.max(0, k - 1)), y + 3, x(k) - x(Math.max(0, k - 1)) + 0.5, row - 6);
    });
    y += row;
  }
  view.cursor = (time) => 9 + left + Math.min(1, time / Math.max(seconds, 1e-6)) * width;
}

function speeds({ frames, meta }) {
  const out = frames.map((frame, k) => {
    const next = frames[k + 1];
    return next ? 3.6 * Math.hypot(next.pose[0] - frame.pose[0], next.pose[1] - frame.pose[1]) / meta.frame_seconds : 0;
  });
  out[out.length - 1] = out[out.length - 2] ?? 0;
  return out;
}
