/** Answers of the server inside components: asked once, kept while they are among the latest. */

import { useEffect, useState } from "preact/hooks";

const KEPT = 400;

interface Question<V> {
  answer: Promise<V>;
  stop: AbortController;
  waiting: number; // components that show it
  done: boolean;
}

const known = new Map<string, Question<unknown>>();

function kept<V>(key: string, ask: (stop: AbortSignal) => Promise<V>): Question<V> {
  const question = (known.get(key) as Question<V> | undefined) ?? asked(key, ask);
  known.delete(key);
  known.set(key, question); // the latest lie at the end
  for (const old of known.keys()) {
    if (known.size <= KEPT) break;
    known.delete(old);
  }
  return question;
}

function asked<V>(key: string, ask: (stop: AbortSignal) => Promise<V>): Question<V> {
  const stop = new AbortController();
  const question: Question<V> = { answer: ask(stop.signal), stop, waiting: 0, done: false };
  question.answer.then(
    () => (question.done = true),
    () => forget(key, question),
  );
  return question;
}

function forget(key: string, question: Question<unknown>): void {
  question.done = true;
  if (known.get(key) === question) known.delete(key);
}

/** A component no longer shows the answer: where none waits for it, the server need not work on. */
function leave(key: string, question: Question<unknown>): void {
  question.waiting--;
  if (question.waiting || question.done) return;
  forget(key, question);
  question.stop.abort();
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

/**
 * The answer to the question that `key` names, with neither value nor error while it is on its way. Null asks nothing.
 * A question that is not shown any more before it is answered is given up: `stop` tells `ask`.
 */
export function useAnswer<V>(key: string | null, ask: (stop: AbortSignal) => Promise<V>): Answer<V> {
  const [answer, put] = useState<Answer<V> & { key: string | null }>({ key: null, ...NOTHING });
  useEffect(() => {
    if (key === null) return;
    let current = true;
    const question = kept(key, ask);
    question.waiting++;
    question.answer.then(
      (value) => current && put({ key, value, error: null }),
      (error: Error) => current && put({ key, value: null, error: error.message }),
    );
    return () => {
      current = false;
      leave(key, question);
    };
  }, [key]);
  return answer.key === key ? answer : NOTHING;
}
