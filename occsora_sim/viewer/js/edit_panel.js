// The panel of the page that edits a start: who is there, what the selected road user does, and saving.
import { $, css, rgbs } from "./scenery.js";

const DEGREE = Math.PI / 180, KMH = 1 / 3.6;
const SCRIPTS = [["", "none"], ["left", "cuts in from left"], ["right", "cuts in from right"], ["path", "follows a path"]];

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Number fields in a row, [words, step, digits] of each; `change` is told all values when one was changed, and which.
class Numbers {
  constructor(fields, change) {
    this.inputs = fields.map(([, step]) => make("input", { type: "number", step, onchange: (event) => {
      const values = this.inputs.map((input) => input.valueAsNumber), k = this.inputs.indexOf(event.target);
      if (values.every(Number.isFinite)) change(values, k); else this.show(this.values);
    } }));
    this.digits = fields.map(([, , digits]) => digits);
    this.row = make("div", { className: "numbers" }, ...fields.map(([text], k) => make("label", {}, text, this.inputs[k])));
  }

  show(values) {
    this.values = values;
    this.inputs.forEach((input, k) => { input.value = Number(values[k].toFixed(this.digits[k])); });
  }
}

export class EditPanel {
  constructor(editor, { classes, file }) {
    this.editor = editor;
    const button = (id, text, onclick) => make("button", { id, type: "button", textContent: text, onclick });
    const choice = (id, pairs) => make("select", { id }, ...pairs.map(([value, text]) => new Option(text, value)));
    const words = classes.map((name) => [name, name.replaceAll("_", " ")]);
    this.said = make("p", { id: "said", role: "status" });
    this.kind = choice("new-class", words);
    this.kind.value = "car";
    this.title = make("h2");
    this.label = choice("class", words);
    this.label.onchange = () => {
      const user = this.user, name = this.label.value;
      editor.change((edits) => edits.reclassed(user, name), user.id < editor.edits.recorded);
    };
    this.where = new Numbers([["x [m]", 0.5, 2], ["y [m]", 0.5, 2], ["yaw [°]", 5, 1], ["km/h", 5, 1]], (values, k) => {
      editor.set([{ x: values[0] }, { y: values[1] }, { yaw: values[2] * DEGREE }, { speed: values[3] * KMH }][k]);
    });
    this.script = choice("script", SCRIPTS);
    this.script.onchange = () => this.scripted(this.script.value);
    this.seconds = new Numbers([["in [s]", 0.5, 2]], ([seconds]) => editor.set({ seconds }));
    this.path = make("div", { id: "path" });
    this.add = button("add", "add a pose", () => editor.hand.point("Click on the ground where it shall pass.", (place) => this.pass(place)));
    this.chosen = make("section", { id: "selected" }, this.title, make("label", {}, "class ", this.label), this.where.row,
      make("div", { className: "numbers" }, make("label", {}, "script ", this.script), this.seconds.row), this.path, this.add, button("remove", "remove", () => editor.remove()));
    this.list = make("div", { id: "road-users" });
    this.undo = button("undo", "undo", () => editor.undo());
    this.file = make("input", { id: "file", value: file, spellcheck: false });
    this.store = button("save", "save", () => editor.save(this.file.value.trim()));
    const place = () => editor.hand.point("Click on the ground where it shall stand.", (at) => editor.place(this.kind.value, at));
    $("editor").append(make("div", {}, this.kind, button("place", "place", place), this.undo), this.said, this.chosen,
      make("h2", { textContent: "Road users in view" }), this.list, make("div", {}, this.file, ".safetensors ", this.store),
      make("small", { textContent: "Played is the recording with these edits. In a generated world the model moves all that have no script." }));
  }

  get user() { return this.editor.users.find(({ id }) => id === this.editor.id); }

  // A line about what was asked for last, and a command to run.
  say(text, refused, command = "") {
    this.said.replaceChildren(text, ...(command ? [make("code", { textContent: command })] : []));
    this.said.classList.toggle("refused", refused);
  }

  show() {
    const { editor, user } = this, { edits } = editor, edit = edits.of(editor.id) ?? {};
    this.chosen.hidden = !user;
    this.undo.disabled = !editor.past.length;
    if (user) {
      this.title.textContent = `${user.id} ${user.name.replaceAll("_", " ")}`;
      this.label.value = user.name;
      this.where.show([user.x, user.y, user.yaw / DEGREE, user.speed / KMH]);
      this.script.value = edit.path ? "path" : edit.cut_in ?? "";
      this.seconds.row.hidden = !edit.cut_in;
      this.seconds.show([edit.seconds ?? 3]);
      this.add.hidden = !edit.path;
      this.showPath(edit.path ?? []);
    }
    const row = (id, text, label, more) => make("button", { type: "button", className: id === editor.id ? "on" : "", ...more },
      make("span", { className: "swatch" }), text);
    this.list.replaceChildren(
      ...editor.users.map(({ id, label, name, x, y }) => {
        const made = row(id, `${id} ${name.replaceAll("_", " ")}${edits.of(id) ? " *" : ""}`, label, { onclick: () => editor.select(id) });
        made.firstChild.style.background = css(rgbs[label]);
        made.append(make("small", { textContent: `${x.toFixed(1)}, ${y.toFixed(1)}` }));
        return made;
      }),
      ...edits.removed().map((id) => row(id, `${id} removed: put it back`, 0, { onclick: () => editor.change((all) => all.restored(id)) })),
    );
  }

  showPath(path) {
    const { children } = this.path;
    while (children.length > path.length) this.path.lastChild.remove();
    while (children.length < path.length) {
      const k = children.length, numbers = new Numbers([["s", 0.5, 1], ["x", 0.5, 1], ["y", 0.5, 1], ["°", 5, 0]], (values) =>
        this.walk((now) => now.map((pose, at) => (at === k ? [...values.slice(0, 3), values[3] * DEGREE] : pose))));
      numbers.row.numbers = numbers;
      numbers.row.append(make("button", { type: "button", textContent: "×", title: "leave out", onclick: () => this.walk((now) => now.filter((_, at) => at !== k)) }));
      this.path.append(numbers.row);
    }
    path.forEach((pose, k) => children[k].numbers.show([...pose.slice(0, 3), pose[3] / DEGREE]));
  }

  // Another path of the selected road user, made of its present one; one without poses is none.
  walk(other) {
    const path = other(this.editor.edits.of(this.editor.id).path);
    this.editor.set({ path: path.length ? path : null });
  }

  pass([x, y]) {
    this.walk((path) => {
      const [seconds, fromX, fromY] = path.at(-1);
      return [...path, [seconds + 2, x, y, Math.atan2(y - fromY, x - fromX)].map((value) => Number(value.toFixed(2)))];
    });
  }

  scripted(script) {
    const { editor, user } = this, none = { path: null, cut_in: null, seconds: null };
    if (script === "path") {
      const far = 3 * Math.max(user.speed, 1.5);
      const end = [3, user.x + far * Math.cos(user.yaw), user.y + far * Math.sin(user.yaw), user.yaw];
      editor.set({ ...none, path: [end.map((value) => Number(value.toFixed(2)))] });
    } else if (script) {
      const speed = user.speed < 1 ? { speed: Math.max(3, Number(editor.speed.toFixed(1))) } : {};  // it must drive to cut in
      editor.set({ ...none, cut_in: script, seconds: 3, ...speed });
    } else editor.set(none);
  }
}
