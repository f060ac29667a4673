/** Numbers and words as they are shown. */

const whole = new Intl.NumberFormat("en");

export function count(n: number, one: string, many = `${one}s`): string {
  return `${whole.format(n)} ${n === 1 ? one : many}`;
}

export function integer(n: number): string {
  return whole.format(n);
}

/** Three significant digits, in powers of ten only where a plain number would be long. */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace("e+", "e").replaceAll("-", "−");
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

/** The end of a long name: of a path, the file. */
export function short(name: string): string {
  return name.split("/").at(-1) ?? name;
}

/** A class as it is called; one without a name by its number. */
export function named({ title }: { title: string }): string {
  return /^\d+$/.test(title) ? `class ${title}` : title;
}
