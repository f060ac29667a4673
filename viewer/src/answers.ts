/** Answers of the server inside components: asked once, kept while they are among the latest. */

import { useEffect, useState } from "preact/hooks";

const KEPT = 400;
const known = new Map<string, Promise<unknown>>();

function kept<V>(key: string, ask: () => Promise<V>): Promise<V> {
  const found = known.get(key) as Promise<V> | undefined;
  const answer = found ?? ask();
  known.delete(key);
  known.set(key, answer); // the latest lie at the end
  answer.catch(() => known.delete(key));
  for (const old of known.keys()) {
    if (known.size <= KEPT) break;
    known.delete(old);
  }
  return answer;
}

/** Ask again from now on: the store has changed. */
export function forgetAnswers(): void {
  known.clear();
}

export interface Answer<V> {
  value: V | null;
  error: string | null;
}

const NOTHING = { value: null, error: null };

/** The answer to the question that `key` names, with neither value nor error while it is on its way. Null asks nothing. */
export function useAnswer<V>(key: string | null, ask: () => Promise<V>): Answer<V> {
  const [answer, put] = useState<Answer<V> & { key: string | null }>({ key: null, ...NOTHING });
  useEffect(() => {
    if (key === null) return;
    let current = true;
    kept(key, ask).then(
      (value) => current && put({ key, value, error: null }),
      (error: Error) => current && put({ key, value: null, error: error.message }),
    );
    return () => {
      current = false;
    };
  }, [key]);
  return answer.key === key ? answer : NOTHING;
}
