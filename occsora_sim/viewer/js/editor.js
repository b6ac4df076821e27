// Edits a start: asks the server how it is then, shows that, and has it saved.
import { look } from "./camera.js";
import { measure, paint, views } from "./clock.js";
import { EditPanel } from "./edit_panel.js";
import { Edits } from "./edits.js";
import { Hand } from "./hand.js";
import { compose, relative, wrap } from "./pose.js";
import { Recording } from "./recording.js";
import { CLASSES, unpack } from "./scenery.js";
import { Selection } from "./selection.js";

const round = (value, digits = 2) => Number(value.toFixed(digits));

async function ask(path, content) {
  const answer = await fetch(path, { method: "POST", body: JSON.stringify(content) }).catch(() => null);
  if (!answer) return { refused: "The program has ended; what was saved is saved." };
  return answer.ok ? answer.json() : { refused: `the server answered ${answer.status}` };
}

export class Editor {
  constructor(said) {
    this.edits = new Edits(said);
    this.past = [];
    this.id = null;
    this.queue = Promise.resolve();
    this.hand = new Hand(this);
    this.panel = new EditPanel(this, said);
    this.selection = new Selection(this.view);
    this.view.decorate = () => {
      const path = (this.edits.of(this.id)?.path ?? []).map(([, ...pose]) => compose(this.origin, pose));
      this.selection.draw(this.selected, this.hand.pose, path);
    };
    addEventListener("keydown", (event) => this.key(event));
    look("top");
    this.panel.show();
  }

  get view() { return views[0]; }

  get origin() { return this.view.recording.frames[0].pose; }

  // The road user that is selected, as it is in the picture.
  get selected() { return this.view.users?.find((user) => user.id === this.id); }

  // Those in view at the start, the nearest first: id, class, x, y [m], yaw [rad] in the ego frame, speed [m/s].
  get users() {
    return [...this.view.recording.frames[0].users.values()].map(({ id, label, pose, speed }) => {
      const [x, y, yaw] = relative(this.origin, pose);
      return { id, label, name: CLASSES[label], x: round(x), y: round(y), yaw: round(wrap(yaw), 4), speed: round(speed) };
    }).filter(({ x, y }) => Math.max(Math.abs(x), Math.abs(y)) < this.view.border).sort((a, b) => Math.hypot(a.x, a.y) - Math.hypot(b.x, b.y));
  }

  get speed() {  // of the ego [m/s]
    const [a, b] = this.view.recording.frames;
    return Math.hypot(b.pose[0] - a.pose[0], b.pose[1] - a.pose[1]) / this.view.recording.meta.frame_seconds;
  }

  select(id) {
    this.id = id;
    this.panel.show();
    paint();
  }

  moved(pose, turned) {
    const [x, y, yaw] = relative(this.origin, pose);
    return this.set(turned ? { yaw: round(wrap(yaw), 4) } : { x: round(x), y: round(y) });
  }

  set(values) {
    const { id } = this;
    return this.change((edits) => edits.changed(id, values));
  }

  place(name, [x, y]) { return this.change((edits) => edits.placed({ class: name, x: round(x), y: round(y), yaw: 0, speed: 0 }), true); }

  remove() {
    const { id } = this;
    if (id !== null) this.change((edits) => edits.without(id));
  }

  // Asks for the list that `make` gives of the present edits, after all that was asked for before; `made`: its last edit
  // makes a road user, which is selected then.
  change(make, made = false) {
    return (this.queue = this.queue.then(async () => {
      const { list, ids } = this.edits;
      if (await this.take(make(this.edits), made)) this.past.push({ list, ids });
      this.panel.show();
    }));
  }

  undo() {
    this.queue = this.queue.then(async () => {
      if (this.past.length) await this.take(this.past.pop().list);
      this.panel.show();
    });
  }

  // Shows the start with the edits `list`; returns whether they can be.
  async take(list, made = false) {
    const { piece, ids, refused } = await ask("edits", { edits: list });
    this.panel.say(refused ?? "", Boolean(refused));
    if (refused) return false;
    Object.assign(this.edits, { list, ids });
    this.view.recording = new Recording(await unpack(piece));
    this.view.clear();
    measure();
    if (made) this.id = ids.at(-1);
    else if (!this.users.some(({ id }) => id === this.id)) this.id = null;
    return true;
  }

  async save(name) {
    await this.queue;
    const { path, command, refused } = await ask("save", { edits: this.edits.list, name });
    this.panel.say(refused ?? `saved: ${path}`, Boolean(refused), command);
  }

  key(event) {
    if (event.target.matches("select, input:not([type=range], [type=checkbox])")) return;
    if (event.key === "Delete") this.remove();
    else if (event.key === "Escape") this.hand.point("", null);
    else if (event.key === "z" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); this.undo(); }
  }
}
