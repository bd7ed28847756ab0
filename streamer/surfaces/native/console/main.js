/** The console: who is logged in, and which page is shown. */

import { api, whenSignedOut } from "./api.js";
import { app } from "./app.js";
import { audit } from "./audit.js";
import { fill, foreign, h } from "./dom.js";
import { overview } from "./overview.js";
import { player } from "./player.js";
import { publish } from "./publish.js";
import { schedules } from "./schedules.js";
import { clock } from "./text.js";

const PAGES = [
  ["overview", "Overview", overview],
  ["player", "Player", player],
  ["publish", "Publish", publish, "operator"],
  ["schedules", "Schedules", schedules],
  ["app", "App", app],
  ["audit", "Audit", audit, "operator"],
];
const ROLES = ["viewer", "support", "operator"];
const $ = (id) => document.getElementById(id);

let session = null;
let shown = null;

/** Whether the session's role includes `role`. */
const may = (role) => ROLES.indexOf(session.role) >= ROLES.indexOf(role);

function route() {
  if (!session) return;
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  const allowed = PAGES.filter(([, , , role]) => !role || may(role));
  const page = allowed.find(([it]) => it === name) ?? allowed[0];
  shown?.stop?.();
  fill(
    $("pages"),
    allowed.map(([id, title]) =>
      h("a", { href: `#/${id}`, "aria-current": id === page[0] ? "page" : false }, title),
    ),
  );
  document.title = `${page[1]} – streamer console`;
  let argument = "";
  try {
    argument = decodeURIComponent(rest.join("/"));
  } catch {
    // Not a link of ours.
  }
  shown = page[2]({ argument, session, may });
  fill($("content"), shown.element);
}

function welcome(opened) {
  session = opened;
  $("top").hidden = false;
  fill($("app"), foreign(session.app));
  const name = session.name || `key ${session.key}`;
  fill($("who"), foreign(name), `, ${session.role}`);
  $("who").title = `The session ends at ${clock(session.expires_at, Date.now())}`;
  route();
  setTimeout(() => signedOut("The session has ended."), Math.min(Date.parse(session.expires_at) - Date.now(), 2 ** 31 - 1));
}

function signedOut(reason = "") {
  shown?.stop?.();
  shown = session = null;
  $("top").hidden = true;
  document.querySelector("dialog")?.close();
  document.title = "streamer console";
  const key = h("input", { type: "password", name: "key", required: true, autocomplete: "current-password", "aria-describedby": "problem", spellcheck: "false" });
  const problem = h("p.failure", { id: "problem", role: "alert", hidden: !reason }, reason);
  const button = h("button.primary", { type: "submit" }, "Log in");
  const form = h(
    "form.login.card",
    {
      async onsubmit(event) {
        event.preventDefault();
        button.disabled = true;
        try {
          welcome(await api.logIn(key.value));
        } catch (error) {
          problem.textContent =
            error.status === 401 ? "This is no console key, or it has expired." : error.message;
          problem.hidden = false;
          key.select();
        } finally {
          button.disabled = false;
        }
      },
    },
    h("h1", {}, "streamer console"),
    h("label.field", {}, h("span", {}, "Console key"), key),
    problem,
    button,
    h("p.note", {}, "An operator creates one with ", h("code", {}, "streamer key create --app NAME --role viewer"), "."),
  );
  fill($("content"), form);
  key.focus();
}

whenSignedOut(() => session && signedOut("The session has ended: log in again."));
addEventListener("hashchange", () => {
  route();
  $("content").focus({ preventScroll: true });
  scrollTo(0, 0);
});
$("log-out").addEventListener("click", async () => {
  try {
    await api.send("DELETE", "session");
  } finally {
    signedOut("You have logged out.");
  }
});

try {
  welcome(await api.get("session", {}, { once: true }));
} catch (error) {
  signedOut(error.status === 401 ? "" : error.message);
}
