// What becomes of the road users at a start: the list of edits that the server takes, and how it changes.

export class Edits {
  // `edits`, each about the road user in `ids`; those below `recorded` are the recording's.
  constructor({ edits, ids, recorded }) { Object.assign(this, { list: edits, ids, recorded }); }

  // The last edit of a road user, if there is one.
  of(id) { return this.list[this.ids.lastIndexOf(id)]; }

  removed() { return this.list.map((edit) => edit.remove).filter((id) => id !== undefined); }

  // The lists that are asked for: with a new road user in the ego frame,
  placed(values) { return [...this.list, values]; }

  // with other values of one; null takes one away, and an edit that then says nothing goes,
  changed(id, values) {
    const at = this.ids.lastIndexOf(id), edit = { ...(this.list[at] ?? { id }), ...values };
    for (const name of Object.keys(edit)) if (edit[name] === null) delete edit[name];
    const before = this.list.filter((_, k) => k !== at);
    if (Object.keys(edit).join() !== "id") before.splice(at < 0 ? before.length : at, 0, edit);
    return before;
  }

  // without one,
  without(id) {
    const others = this.list.filter((_, k) => this.ids[k] !== id);
    if (id < this.recorded) return [...others, { remove: id }];
    const earlier = (one) => (one > id ? one - 1 : one);  // new ones are numbered without gaps
    return others.map((edit) => ({
      ...edit, ...("id" in edit && { id: earlier(edit.id) }), ...("remove" in edit && { remove: earlier(edit.remove) }),
    }));
  }

  // with one that was removed,
  restored(id) { return this.list.filter((edit) => edit.remove !== id); }

  // and with one of another class: a recorded one makes room for a new one that is where it is.
  reclassed({ id, x, y, yaw, speed }, name) {
    if (id >= this.recorded) return this.changed(id, { class: name, size: null });
    const { cut_in, seconds, path } = this.of(id) ?? {};
    return [...this.without(id), { class: name, x, y, yaw, speed, cut_in, seconds, path }];
  }
}
