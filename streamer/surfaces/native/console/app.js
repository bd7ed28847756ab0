/** The app: its tokens, its limits, and its keys. */

import { api } from "./api.js";
import { fill, foreign, h, table } from "./dom.js";
import { ago, bytes, number } from "./text.js";

export function app() {
  const place = h("div.page", {}, h("p.empty", {}, "…"));
  const element = h("div.page", {}, h("h1", {}, "App"), place);
  void show(place);
  return { element };
}

async function show(place) {
  let found;
  try {
    found = await api.get("app");
  } catch (error) {
    fill(place, h("p.failure", { role: "alert" }, error.message));
    return;
  }
  const now = Date.now();
  const fact = (label, value) => h("div", {}, h("dt", {}, label), h("dd", {}, value));
  const limit = (value, format = number) => (value ? format(value) : "unlimited");
  const { limits } = found;
  fill(
    place,
    h(
      "dl.facts",
      { "aria-label": "The app" },
      fact("App", foreign(found.name)),
      fact("Tokens", [foreign(found.issuer), `, ${found.algorithm}`]),
      fact("Audience", foreign(found.audiences.join(", "))),
      fact("Created", ago(found.created_at, now)),
    ),
    h(
      "section.card",
      { "aria-label": "Quotas" },
      h("h2", {}, "Quotas"),
      h(
        "dl.receipt",
        {},
        h("dt", {}, "Notifications per second"),
        h("dd", {}, limit(limits.publishes_per_s)),
        h("dt", {}, "Bytes per day"),
        h("dd", {}, limit(limits.bytes_per_day, bytes)),
        h("dt", {}, "Players"),
        h("dd", {}, limit(limits.players), found.players === null ? "" : `, ${number(found.players)} used`),
        h("dt", {}, "Pending schedules"),
        h("dd", {}, limit(limits.pending_schedules)),
      ),
    ),
    h(
      "section.card",
      { "aria-label": "Keys" },
      h("h2", {}, "Keys"),
      table(
        "Keys",
        ["Id", "Name", "Rights", "Last used", "Expires"],
        found.keys.map((it) => [
          h("code", {}, it.id),
          foreign(it.name || "–"),
          [it.role && h("span.tag", {}, `console: ${it.role}`), it.scopes.join(", ")],
          it.last_used_at ? ago(it.last_used_at, now) : "never",
          it.expired ? h("span.state.expired", {}, "expired") : it.expires_at ? ago(it.expires_at, now) : "never",
        ]),
        "No keys.",
      ),
    ),
  );
}
