/**
 * Samples of processes as series for charts. Pure: no page, no clock.
 *
 * A sample has what happened in one process within some seconds. Samples of several
 * processes fall into slots of `SLOT_MS` and are added.
 */

export const SLOT_MS = 10_000;
export const HOUR_MS = 3_600_000;

/** The samples that are known, by process. */
export class Known {
  #samples = new Map();

  /**
   * Add a response of the server.
   *
   * @param {Record<string, any[]>} samples
   * @param {number} nowMs
   */
  add(samples, nowMs) {
    for (const [node, list] of Object.entries(samples)) {
      const old = this.#samples.get(node) ?? [];
      const last = old.at(-1)?.at_ms ?? 0;
      this.#samples.set(node, [...old, ...list.filter((it) => it.at_ms > last)]);
    }
    for (const [node, list] of this.#samples) {
      const kept = list.filter((it) => it.at_ms > nowMs - HOUR_MS);
      if (kept.length) this.#samples.set(node, kept);
      else this.#samples.delete(node);
    }
  }

  get nodes() {
    return [...this.#samples.keys()].sort();
  }

  /** @param {string} node */
  latest(node) {
    return this.#samples.get(node)?.at(-1);
  }

  /** The time after which samples of these processes are missing. */
  since(nodes) {
    const times = nodes.map((node) => this.latest(node)?.at_ms ?? 0);
    return times.length ? Math.min(...times) : 0;
  }

  /**
   * Return the slots of the last hour, oldest first; `undefined` for those without any
   * sample.
   *
   * @param {number} nowMs
   */
  slots(nowMs) {
    const end = Math.floor(nowMs / SLOT_MS);
    const slots = Array.from({ length: HOUR_MS / SLOT_MS }, () => undefined);
    for (const list of this.#samples.values()) {
      const own = new Map();
      for (const sample of list) {
        const at = slots.length - 1 - (end - Math.floor(sample.at_ms / SLOT_MS));
        if (at < 0 || at >= slots.length) continue;
        own.set(at, together(own.get(at), sample));
      }
      for (const [at, slot] of own) slots[at] = beside(slots[at], slot);
    }
    return slots;
  }
}

const COUNTS = ["deliveries", "publishes", "slow", "gaps"];

/** A sample after others of the same process: what happened adds up. */
function together(slot, sample) {
  const sum = slot ?? { seconds: 0, connections: {}, refusals: {}, written: [], lag: [], store: 0 };
  const result = { ...sum, seconds: sum.seconds + sample.seconds };
  for (const name of COUNTS) result[name] = (sum[name] ?? 0) + (sample[name] ?? 0);
  result.refusals = added(sum.refusals, sample.refusals ?? {});
  result.written = addedCounts(sum.written, sample.written ?? []);
  result.lag = addedCounts(sum.lag, sample.lag ?? []);
  result.connections = sample.connections ?? {};
  result.store = sample.store ?? 0;
  return result;
}

/** The slot of another process: what is open adds up too, time does not. */
function beside(slot, other) {
  if (!slot) return other;
  const sum = { ...slot, seconds: Math.max(slot.seconds, other.seconds) };
  for (const name of COUNTS) sum[name] = slot[name] + other[name];
  sum.refusals = added(slot.refusals, other.refusals);
  sum.written = addedCounts(slot.written, other.written);
  sum.lag = addedCounts(slot.lag, other.lag);
  sum.connections = added(slot.connections, other.connections);
  sum.store = Math.max(slot.store, other.store);
  return sum;
}

function added(one, other) {
  const sum = { ...one };
  for (const [name, value] of Object.entries(other)) sum[name] = (sum[name] ?? 0) + value;
  return sum;
}

function addedCounts(one, other) {
  const length = Math.max(one.length, other.length);
  return Array.from({ length }, (_, i) => (one[i] ?? 0) + (other[i] ?? 0));
}

/**
 * Return the value below which a share of what a histogram counted is, interpolated
 * within its bucket; `null` if it counted nothing.
 *
 * @param {number[]} counts One more than `bounds`.
 * @param {number[]} bounds
 * @param {number} share From 0 to 1.
 */
export function percentile(counts, bounds, share) {
  const total = counts.reduce((sum, it) => sum + it, 0);
  if (!total) return null;
  let below = 0;
  for (let i = 0; i < counts.length; i++) {
    if (below + counts[i] >= share * total && counts[i]) {
      const low = i ? bounds[i - 1] : 0;
      const high = bounds[i] ?? bounds.at(-1);
      return low + ((share * total - below) / counts[i]) * (high - low);
    }
    below += counts[i];
  }
  return bounds.at(-1);
}

/** @param {Record<string, number>} values */
export function total(values) {
  return Object.values(values).reduce((sum, it) => sum + it, 0);
}
