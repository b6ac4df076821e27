// A person at the wheel: sends the keys that are down, and shows what comes back.
import { clock, measure, views } from "./clock.js";
import { Recording } from "./recording.js";
import { $, unpack } from "./scenery.js";
import { View } from "./view.js";

const KEYS = {
  ArrowUp: "forward", w: "forward", ArrowDown: "back", s: "back", ArrowLeft: "left", a: "left", ArrowRight: "right", d: "right",
  " ": "brake",
};
const ORDERS = { m: "agent", r: "again" };
const HELP = "↑ or W: faster, ↓ or S: slower, ← → or A D: steer, space: brake, M: hand over to the agent and back, R: new episode";

export class Driver {
  constructor() {
    this.held = new Set();
    addEventListener("keydown", (event) => this.key(event, true));
    addEventListener("keyup", (event) => this.key(event, false));
    addEventListener("blur", () => { this.held.clear(); this.send([]); });
    document.body.classList.add("driving");
    const events = new EventSource("events");
    events.onmessage = (event) => { this.queue = this.queue.then(() => this.hear(JSON.parse(event.data))); };
    events.onerror = () => { $("notice").textContent = "The program has ended; what was driven is saved."; };
    this.queue = Promise.resolve();
  }

  key(event, down) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key, held = KEYS[name], order = ORDERS[name];
    if (held) {
      event.preventDefault();
      if (event.repeat || this.held.has(held) === down) return;
      if (down) this.held.add(held); else this.held.delete(held);
      this.send([]);
    } else if (order && down && !event.repeat) this.send([order]);
  }

  send(orders) {
    this.waiting ??= setTimeout(() => { if (!this.ended) $("notice").textContent = "The next step is being computed …"; }, 1500);
    fetch("keys", { method: "POST", body: JSON.stringify({ held: [...this.held], orders }) }).catch(() => {});
  }

  async hear({ piece, new: begins, driver, ended }) {
    const data = piece && await unpack(piece);
    clearTimeout(this.waiting);
    this.waiting = undefined;
    if (begins) {
      for (const view of views) { view.clear(); view.pane.remove(); }
      views.length = 0;
      const view = new View(new Recording(data));
      view.show(0);
      views.push(view);
      clock.time = 0;
    } else if (data) views[0].recording.append(data);
    measure();
    if (clock.seconds - clock.time > 1.5) clock.time = clock.seconds - 0.5;  // a slow page shows less, not later
    clock.playing = true;
    this.ended = ended;
    $("notice").textContent = ended ? `ended: ${ended}. R: a new episode` : clock.seconds ? "" : HELP;
    $("driver").textContent = driver === "you" ? "you drive" : `${driver} drives`;
  }

  // How fast to show what has come: a little faster where more than a step waits.
  pace() { return clock.seconds - clock.time > 0.75 ? 1.25 : 1; }
}
