/**
 * The style of `<streamer-inbox>`.
 *
 * A constructed style sheet: a page's Content Security Policy needs no `unsafe-inline`.
 * Every color and size has a custom property `--streamer-…` that a page may set, also
 * for one of the two schemes only.
 *
 * @module
 */

const LIGHT = `
  color-scheme: light;
  --bg: var(--streamer-background, #ffffff);
  --fg: var(--streamer-text, #16181d);
  --soft: var(--streamer-text-soft, #5a6070);
  --line: var(--streamer-border, #e6e8ec);
  --hover: var(--streamer-hover, #f5f6f8);
  --accent: var(--streamer-accent, #4f46e5);
  --on-accent: var(--streamer-on-accent, #ffffff);
  --fresh: var(--streamer-unread, #f5f6ff);
  --badge: var(--streamer-badge, #dc2626);
  --on-badge: var(--streamer-on-badge, #ffffff);
  --warn: var(--streamer-warning, #fff7e6);
  --on-warn: var(--streamer-on-warning, #7a4b00);
  --bad: var(--streamer-error, #fef1f1);
  --on-bad: var(--streamer-on-error, #a01414);
  --shade: var(--streamer-shadow, 0 0 0 1px rgb(16 24 40 / 5%), 0 4px 12px rgb(16 24 40 / 7%), 0 20px 48px -8px rgb(16 24 40 / 20%));`;

const DARK = `
  color-scheme: dark;
  --bg: var(--streamer-background, #17181c);
  --fg: var(--streamer-text, #f1f2f4);
  --soft: var(--streamer-text-soft, #a2a8b5);
  --line: var(--streamer-border, #2a2c33);
  --hover: var(--streamer-hover, #202228);
  --accent: var(--streamer-accent, #a5a8ff);
  --on-accent: var(--streamer-on-accent, #14141f);
  --fresh: var(--streamer-unread, #1d1e2a);
  --badge: var(--streamer-badge, #f05252);
  --on-badge: var(--streamer-on-badge, #1a0505);
  --warn: var(--streamer-warning, #33270f);
  --on-warn: var(--streamer-on-warning, #ffd58a);
  --bad: var(--streamer-error, #3a1719);
  --on-bad: var(--streamer-on-error, #ffb4b4);
  --shade: var(--streamer-shadow, 0 0 0 1px rgb(255 255 255 / 11%), 0 20px 48px -8px rgb(0 0 0 / 70%));`;

export const CSS = `
:host {${LIGHT}
  --radius: var(--streamer-radius, 14px);
  display: inline-block;
  font: 400 14px/1.45 var(--streamer-font, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif);
  color: var(--fg);
  text-align: start;
  -webkit-text-size-adjust: none;
}
@media (prefers-color-scheme: dark) { :host(:not([theme="light"])) {${DARK}} }
:host([theme="dark"]) {${DARK}}
:host([hidden]), [hidden] { display: none !important; }
*, ::before, ::after { box-sizing: border-box; }
h2, ul, p { margin: 0; padding: 0; }
ul { list-style: none; }
button {
  font: inherit; color: inherit; background: none; border: 0; padding: 0; margin: 0;
  cursor: pointer; -webkit-tap-highlight-color: transparent; text-align: inherit;
}
button:disabled { cursor: default; opacity: .45; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.icon {
  width: 18px; height: 18px; flex: none; display: block; fill: none;
  stroke: currentColor; stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round;
}
.icon-dot { fill: currentColor; stroke: none; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }

.bell {
  position: relative; display: grid; place-items: center;
  width: 40px; height: 40px; border-radius: 50%;
  color: var(--streamer-bell, currentColor); transition: background-color .12s;
}
.bell:hover, .bell[aria-expanded="true"] { background: color-mix(in srgb, currentColor 9%, transparent); }
.bell .icon { width: 22px; height: 22px; }
.badge {
  position: absolute; inset-block-start: 2px; inset-inline-end: 0;
  min-width: 18px; height: 18px; padding-inline: 5px; border-radius: 9px;
  background: var(--badge); color: var(--on-badge);
  font: 700 11px/18px var(--streamer-font, system-ui, sans-serif);
  text-align: center; font-variant-numeric: tabular-nums;
  animation: pop .22s cubic-bezier(.3, 1.6, .6, 1);
}

.panel {
  position: fixed; inset: auto; margin: 0; padding: 0; border: 0; overflow: hidden;
  display: none; flex-direction: column; z-index: var(--streamer-layer, 1000);
  width: min(var(--streamer-width, 400px), 100vw - 16px);
  max-height: min(var(--streamer-height, 620px), 100dvh - 16px);
  background: var(--bg); color: var(--fg);
  border-radius: var(--radius); box-shadow: var(--shade);
}
.panel.open { display: flex; animation: rise .14s ease-out; }
.panel:focus { outline: none; }
.head { display: flex; align-items: center; gap: 8px; padding-block: 14px 10px; padding-inline: 18px 12px; }
h2 { font-size: 16px; font-weight: 650; letter-spacing: -.01em; flex: 1; }
.tool {
  display: inline-flex; align-items: center; justify-content: center; gap: 6px;
  min-width: 30px; height: 30px; border-radius: 8px; color: var(--soft);
  transition: background-color .12s, color .12s;
}
.tool:hover:not(:disabled) { background: var(--hover); color: var(--fg); }
.head .all { padding-inline: 8px; font-size: 13px; font-weight: 500; }
.filters { display: flex; gap: 18px; padding-inline: 18px; border-block-end: 1px solid var(--line); }
.filters button {
  padding: 6px 0 9px; margin-block-end: -1px; color: var(--soft); font-weight: 500; font-size: 13px;
  border-block-end: 2px solid transparent; display: flex; gap: 6px; align-items: center;
}
.filters button:hover { color: var(--fg); }
.filters [aria-pressed="true"] { color: var(--fg); border-color: var(--accent); }
.count {
  min-width: 20px; padding-inline: 6px; border-radius: 10px; font-size: 11px; line-height: 18px; font-weight: 600;
  text-align: center; background: var(--hover); color: var(--soft); font-variant-numeric: tabular-nums;
}
[aria-pressed="true"] .count { background: color-mix(in srgb, var(--accent) 14%, var(--bg)); color: var(--fg); }

.bar { display: flex; align-items: center; gap: 10px; padding: 9px 18px; font-size: 13px; background: var(--warn); color: var(--on-warn); }
.bar.bad { background: var(--bad); color: var(--on-bad); }
.bar span { flex: 1; }
.bar .icon { width: 16px; height: 16px; }
.bar button { font-weight: 600; text-decoration: underline; text-underline-offset: 2px; }

.scroll { overflow-y: auto; overscroll-behavior: contain; flex: 1; min-height: 0; scrollbar-width: thin; }
.item { position: relative; border-block-end: 1px solid var(--line); }
.item:last-child { border-block-end: 0; }
.item.fresh { background: var(--fresh); }
.main {
  display: flex; gap: 12px; width: 100%; padding: 14px 18px; padding-inline-end: 34px;
  color: inherit; text-decoration: none; align-items: flex-start;
}
.main:focus-visible { outline-offset: -3px; border-radius: 8px; }
.item:hover { background: var(--hover); }
.face {
  flex: none; width: 36px; height: 36px; border-radius: 50%; display: grid; place-items: center;
  background: color-mix(in srgb, var(--tone, var(--accent)) 14%, var(--bg));
  color: color-mix(in srgb, var(--tone, var(--accent)) 82%, var(--fg));
}
.face.urgent { --tone: #dc2626; }
.face.wide { --tone: #0d9488; }
.words { flex: 1; min-width: 0; display: grid; gap: 2px; }
.name, .text { overflow-wrap: anywhere; unicode-bidi: isolate; text-align: start; }
.name { font-weight: 500; display: -webkit-box; -webkit-line-clamp: 2; -webkit-box-orient: vertical; overflow: hidden; }
.fresh .name { font-weight: 650; }
.text { color: var(--soft); display: -webkit-box; -webkit-line-clamp: 3; -webkit-box-orient: vertical; overflow: hidden; white-space: pre-line; }
.meta { color: var(--soft); font-size: 12px; margin-block-start: 2px; display: flex; gap: 6px; min-width: 0; }
.meta span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; unicode-bidi: isolate; }
.meta span::before { content: "·"; margin-inline-end: 6px; }
.meta time { white-space: nowrap; }
.mark { position: absolute; inset-block-start: 20px; inset-inline-end: 16px; width: 8px; height: 8px; border-radius: 50%; background: var(--accent); }
.acts {
  position: absolute; inset-block-start: 8px; inset-inline-end: 10px; display: flex; gap: 1px; padding: 2px; opacity: 0;
  background: var(--bg); border-radius: 10px; box-shadow: 0 0 0 1px var(--line), 0 2px 6px rgb(0 0 0 / 8%);
  transition: opacity .1s;
}
.acts .tool { min-width: 28px; height: 28px; }
.acts .icon { width: 16px; height: 16px; }
.item:hover .acts, .acts:focus-within { opacity: 1; }
@media (hover: none) {
  .acts { inset-block: auto 2px; inset-inline-end: 6px; opacity: 1; box-shadow: none; background: none; padding: 0; }
  .acts .tool { min-width: 40px; height: 38px; }
  .item .meta { padding-inline-end: 56px; }
}

.empty { display: grid; justify-items: center; gap: 4px; padding: 56px 32px 64px; text-align: center; color: var(--soft); }
.empty .icon { width: 26px; height: 26px; stroke-width: 1.5; }
.empty .ring { display: grid; place-items: center; width: 60px; height: 60px; border-radius: 50%; background: var(--hover); margin-block-end: 12px; }
.empty b { color: var(--fg); font-weight: 600; font-size: 15px; }
.bone { display: flex; gap: 12px; padding: 16px 18px; }
.bone i { background: var(--hover); border-radius: 6px; animation: breathe 1.4s ease-in-out infinite; height: 11px; }
.bone > i { width: 36px; height: 36px; border-radius: 50%; flex: none; }
.bone div { flex: 1; display: grid; gap: 9px; padding-block-start: 4px; }
.bone div i:first-child { width: 55%; }
.bone div i:last-child { width: 85%; }
.more { padding: 10px 18px 12px; display: grid; border-block-start: 1px solid var(--line); }
.more button { height: 36px; border-radius: 9px; border: 1px solid var(--line); text-align: center; font-weight: 500; font-size: 13px; }
.more button:hover:not(:disabled) { background: var(--hover); }

.toasts {
  position: fixed; inset: auto; inset-block-end: 0; inset-inline-end: 0; margin: 0; padding: 16px; border: 0; overflow: visible;
  background: none; width: min(392px, 100vw); display: flex; flex-direction: column; gap: 10px;
  color: var(--fg); pointer-events: none; z-index: var(--streamer-layer, 1000);
}
.toast {
  position: relative; pointer-events: auto; background: var(--bg); border-radius: var(--radius); box-shadow: var(--shade);
  animation: slide .2s cubic-bezier(.2, .9, .3, 1.1); overflow: hidden;
}
.toast.urgent { box-shadow: inset 3px 0 0 var(--badge), var(--shade); }
.toast:dir(rtl) { animation-name: slide-rtl; }
.toast.urgent:dir(rtl) { box-shadow: inset -3px 0 0 var(--badge), var(--shade); }
.toast .main { padding-inline-end: 48px; }
.toast .name { font-weight: 600; }
.toast > .tool { position: absolute; inset-block-start: 10px; inset-inline-end: 10px; }

@keyframes pop { from { transform: scale(.4); } }
@keyframes rise { from { opacity: 0; transform: translateY(-6px) scale(.985); } }
@keyframes slide { from { opacity: 0; transform: translateX(28px); } }
@keyframes slide-rtl { from { opacity: 0; transform: translateX(-28px); } }
@keyframes breathe { 50% { opacity: .45; } }
@media (prefers-reduced-motion: reduce) { *, ::before, ::after { animation: none !important; transition: none !important; } }
@media (forced-colors: active) {
  .panel, .toast { border: 1px solid; }
  .mark, .badge { forced-color-adjust: none; background: Highlight; color: HighlightText; }
}
@media (max-width: 479px) {
  .panel { inset: auto 0 0 0 !important; width: 100vw; max-width: none; max-height: 88dvh; border-end-start-radius: 0; border-end-end-radius: 0; padding-block-end: env(safe-area-inset-bottom); }
  .panel.open { animation-name: sheet; animation-duration: .2s; }
  .toasts { padding: 8px; }
}
@keyframes sheet { from { transform: translateY(40px); opacity: 0; } }
`;

/** @type {CSSStyleSheet | null} */
let sheet = null;

/** @param {ShadowRoot} root */
export function adopt(root) {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(CSS);
  }
  root.adoptedStyleSheets = [sheet];
}
