/** A row of tabs; arrow keys move along it. */

interface Props<Name extends string> {
  tabs: Readonly<Record<Name, string>>;
  label: string;
  active: Name;
  choose: (name: Name) => void;
}

export function Tabs<Name extends string>({ tabs, label, active, choose }: Props<Name>) {
  const names = Object.keys(tabs) as Name[];
  const onKeyDown = (event: KeyboardEvent) => {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!by) return;
    event.stopPropagation();
    const to = (names.indexOf(active) + by + names.length) % names.length;
    choose(names[to]!);
    ((event.currentTarget as HTMLElement).children[to] as HTMLElement).focus();
  };
  return (
    <div class="tabs" role="tablist" aria-label={label} onKeyDown={onKeyDown}>
      {names.map((name) => (
        <button
          key={name}
          role="tab"
          aria-selected={name === active}
          tabIndex={name === active ? 0 : -1}
          onClick={() => choose(name)}
        >
          {tabs[name]}
        </button>
      ))}
    </div>
  );
}
