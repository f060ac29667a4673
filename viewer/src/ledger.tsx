/** The ledger of one sample: what went in, came out and was lost, operator by operator. */

import { useAnswer } from "./answers";
import * as api from "./api";
import * as data from "./data";
import { number } from "./format";
import { Bar } from "./heat";
import type { LedgerRow } from "./types";

export function LedgerView({ row }: { row: number }) {
  const name = data.explanation.value!.name;
  const { value, error } = useAnswer(`ledger ${name} ${row}`, (stop) => api.ledger(row, name, stop));
  if (error) return <p class="empty">{error}</p>;
  if (!value)
    return (
      <p class="empty" aria-busy="true">
        Following the relevance back…
      </p>
    );
  const limit = Math.max(...value.rows.map((r) => Math.abs(r.outgoing ?? 0)), 0);
  const causes = Object.entries(value.causes).filter(([, amount]) => amount);
  return (
    <>
      {value.notice && <p class="notice-line">{value.notice}</p>}
      <p class="said">
        <span>
          output <b>{number(value.output)}</b>
        </span>
        <span>
          largest unexplained <b>{number(value.unexplained)}</b>
        </span>
        {causes.map(([cause, amount]) => (
          <span key={cause}>
            {cause} <b>{number(amount)}</b>
          </span>
        ))}
      </p>
      <div class="scroll">
        <table class="ledger">
          <thead>
            <tr>
              <th scope="col">layer: operator, rule</th>
              <th scope="col" class="value">
                in
              </th>
              <th scope="col" class="value">
                out
              </th>
              <th scope="col" class="bar" aria-label="out, as a bar" />
              <th scope="col" class="value">
                absorbed
              </th>
              <th scope="col" class="value">
                unexplained
              </th>
            </tr>
          </thead>
          <tbody>
            {value.rows.map((r, i) => (
              <Line key={i} entry={r} limit={limit} />
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

function Line({ entry, limit }: { entry: LedgerRow; limit: number }) {
  const absorbed = Object.entries(entry.absorbed).filter(([, amount]) => amount);
  const sum = absorbed.reduce((all, [, amount]) => all + amount!, 0);
  return (
    <tr>
      <th scope="row">
        {entry.layer && <b>{entry.layer}</b>} {entry.operator} {entry.rule && <span class="faint">{entry.rule}</span>}
      </th>
      <td class="value">{number(entry.incoming)}</td>
      <td class="value">{number(entry.outgoing)}</td>
      <td class="bar">
        <Bar value={entry.outgoing ?? 0} limit={limit} />
      </td>
      <td class="value" title={absorbed.map(([cause, amount]) => `${cause} ${number(amount)}`).join(", ")}>
        {absorbed.length ? number(sum) : ""}
      </td>
      <td class="value">{entry.unexplained ? number(entry.unexplained) : "0"}</td>
    </tr>
  );
}
