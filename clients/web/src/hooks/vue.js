/**
 * Composables for Vue 3.
 *
 * @module
 */

import { computed, getCurrentScope, onScopeDispose, shallowRef } from "vue";
import { InboxStore } from "../store.js";

/** @import { StreamerClient } from "../index.js" */
/** @import { StoreOptions } from "../store.js" */

/**
 * Follow an inbox. In a component's `setup` it ends with the component; a store that was
 * passed in goes on.
 *
 * @param {InboxStore | StreamerClient} source A store, or a client to make one for.
 * @param {StoreOptions} [options] With a client.
 */
export function useInbox(source, options) {
  const isOwn = !(source instanceof InboxStore);
  const store = isOwn ? new InboxStore(source, options) : source;
  store.start();
  const snapshot = shallowRef(store.getSnapshot());
  const end = store.subscribe(() => {
    snapshot.value = store.getSnapshot();
  });
  if (getCurrentScope()) {
    onScopeDispose(() => {
      end();
      if (isOwn) store.stop();
    });
  }
  return {
    store,
    snapshot,
    notifications: computed(() => snapshot.value.notifications),
    unread: computed(() => snapshot.value.unread),
    status: computed(() => snapshot.value.status),
    hasMore: computed(() => snapshot.value.hasMore),
    loading: computed(() => snapshot.value.loading),
    error: computed(() => snapshot.value.error),
  };
}
