/**
 * Defines `<streamer-inbox>`. Importing it on a server, without a DOM, has no effect.
 *
 * @module
 */

import { StreamerInbox } from "./component/element.js";

export { StreamerInbox };

if (globalThis.customElements && !customElements.get("streamer-inbox")) {
  customElements.define("streamer-inbox", StreamerInbox);
}
