/** The console: who is logged in, and which page is shown. */

import { APP, api, whenSignedOut } from "./api.js";
import { app } from "./app.js";
import { audit } from "./audit.js";
import { acting, fill, foreign, h } from "./dom.js";
import { overview } from "./overview.js";
import { player } from "./player.js";
import { publish } from "./publish.js";
import { schedules } from "./schedules.js";
import { clock, visible } from "./text.js";

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
/** Of the session's end. */
let timer;

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

/** The app's name; a choice for who has several. */
function chooser({ app, apps }) {
  if (apps.length < 2) return foreign(app);
  return h(
    "select",
    {
      "aria-label": "App",
      onchange(event) {
        const url = new URL(location.href);
        url.searchParams.set("app", event.target.value);
        location.assign(url);
      },
    },
    apps.map((it) => h("option", { value: it, selected: it === app }, it)),
  );
}

function welcome(opened) {
  session = opened;
  $("top").hidden = false;
  fill($("app"), chooser(session));
  const name = session.name || session.subject || `key ${session.key}`;
  fill($("who"), foreign(name), `, ${session.role}`);
  $("who").title = `The session ends at ${clock(session.expires_at, Date.now())}`;
  route();
  clearTimeout(timer);
  timer = setTimeout(() => signedOut("The session has ended."), Math.min(Date.parse(session.expires_at) - Date.now(), 2 ** 31 - 1));
}

/** Show the login, with the ways that the server has now. */
function signedOut(reason = "") {
  clearTimeout(timer);
  shown?.stop?.();
  shown = session = null;
  $("top").hidden = true;
  document.querySelector("dialog")?.close();
  document.title = "streamer console";
  const problem = h("p.failure", { id: "problem", role: "alert", hidden: !reason }, visible(reason));
  const place = h("div.ways");
  fill($("content"), h("section.login.card", { "aria-label": "Login" }, h("h1", {}, "streamer console"), place, problem));
  const failed = (text) => {
    problem.textContent = visible(text);
    problem.hidden = false;
  };
  void api.waysToLogIn().then(
    ({ keys, issuer }) => !session && ways(place, failed, keys || !issuer, issuer),
    (error) => failed(error.message),
  );
}

function ways(place, failed, keys, issuer) {
  const leave = h("button.primary", { type: "button", onclick: () => begin(leave, failed) }, "Log in with ", foreign(issuer));
  const form = keyForm(failed, !issuer);
  fill(place, issuer && leave, issuer && keys && h("p.or", {}, "or"), keys && form);
  (issuer ? leave : form.querySelector("input")).focus();
}

async function begin(button, failed) {
  button.disabled = true;
  try {
    const { url } = await api.beginLogin(location.hash);
    location.assign(url);
  } catch (error) {
    failed(error.message);
    button.disabled = false;
  }
}

function keyForm(failed, isOnly) {
  const key = h("input", { type: "password", name: "key", required: true, autocomplete: "current-password", "aria-describedby": "problem", spellcheck: "false" });
  const button = h(isOnly ? "button.primary" : "button", { type: "submit" }, isOnly ? "Log in" : "Log in with the key");
  return h(
    "form",
    {
      async onsubmit(event) {
        event.preventDefault();
        button.disabled = true;
        try {
          welcome(await api.logIn(key.value));
        } catch (error) {
          failed(error.status === 401 ? "This is no console key, or it has expired." : error.message);
          key.select();
        } finally {
          button.disabled = false;
        }
      },
    },
    h("label.field", {}, h("span", {}, "Console key"), key),
    button,
    isOnly && h("p.note", {}, "An operator creates one with ", h("code", {}, "streamer key create --app NAME --role viewer"), "."),
  );
}

whenSignedOut(() => session && signedOut("The session has ended: log in again."));
addEventListener("hashchange", () => {
  route();
  $("content").focus({ preventScroll: true });
  scrollTo(0, 0);
});
$("log-out").addEventListener("click", (event) =>
  acting(event.currentTarget, async () => {
    // Not logged out before the server says so: the cookie would still be valid.
    const answer = await api.send("DELETE", "session");
    signedOut("You have logged out.");
    // The issuer leads back here.
    if (answer?.url) location.assign(answer.url);
  }),
);

try {
  welcome(await api.get("session", {}, { once: true }));
} catch (error) {
  if (error.status === 403 && APP) location.replace(location.pathname + location.hash);
  else signedOut(error.status === 401 ? "" : error.message);
}
