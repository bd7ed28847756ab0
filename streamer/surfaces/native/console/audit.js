/** The audit log of the app. */

import { api } from "./api.js";
import { acting, fill, foreign, h, table, tell } from "./dom.js";
import { clock } from "./text.js";

export function audit() {
  const list = h("section.card", { "aria-label": "Entries" });
  const name = h("input", { name: "player", autocomplete: "off", spellcheck: "false", maxlength: 255 });
  const find = h("button.primary", { type: "submit" }, "Show");
  const form = h(
    "form.search",
    {
      role: "search",
      onsubmit(event) {
        event.preventDefault();
        void acting(find, () => show([]));
      },
    },
    h("label.field", {}, h("span", {}, "Only of the player"), name),
    find,
  );

  async function show(places) {
    const page = await api.get("audit", { limit: 20, before: places.at(-1), player: name.value || undefined });
    const now = Date.now();
    const turn = (label, to) => {
      const button = h("button", { type: "button", onclick: () => acting(button, () => show(to)) }, label);
      return button;
    };
    fill(
      list,
      table(
        "Audit log",
        ["At", "By", "Action", "On", "Reason", "Outcome"],
        page.entries.map((it) => [
          clock(it.at, now),
          foreign(it.by_name ? `${it.by_name} (${it.by})` : it.by),
          it.action,
          foreign(it.player_name || it.target || (it.player ? `player ${it.player}` : "")),
          it.reason ? foreign(it.reason) : "",
          h(it.outcome === "done" ? "span" : "span.state.expired", {}, it.outcome.replaceAll("_", " ")),
        ]),
        "Nothing was recorded.",
      ),
      h(
        "div.buttons",
        {},
        places.length > 0 && turn("Newer", places.slice(0, -1)),
        page.next && turn("Older", [...places, page.next]),
      ),
    );
  }

  show([]).catch((error) => tell(error.message, "bad"));
  return { element: h("div.page", {}, h("h1", {}, "Audit"), form, list) };
}
