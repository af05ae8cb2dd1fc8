"""What the benchmark prints of its figures."""

import os

from cases import CASES, MAIN, PAIRS

# The first is ours. The bare proxy is no gateway, but the floor.
NAMES = ("tollgate", "envoy", "haproxy", "bare")
GATEWAYS = ("envoy", "haproxy")
# How much of one core's throughput two have to give.
SCALING = 1.9


def show(figures, cases, cores):
    """Prints all tables; whether all is allowed."""
    main = [case for case in cases if case in MAIN]
    if main:
        print(f"\n{'':34}{'':20}" + "".join(f"{name:>12}" for name in NAMES) + "".join(f"{'/' + name:>10}" for name in NAMES[1:]))
    for case in [*main, "memory"]:
        title = CASES[case][0] if case in CASES else "memory"
        for figure in sorted({figure for at, figure, _ in figures if at == case}):
            values = [figures.get((case, figure, name)) for name in NAMES]
            cells = "".join(f"{value:12.2f}" if value is not None else f"{'-':>12}" for value in values)
            own, *others = values
            ratios = "".join(f"{own / other:10.2f}" if own and other else f"{'-':>10}" for other in others)
            print(f"{title:34}{figure:20}{cells}{ratios}")
            title = ""
    good = pairs(figures, [case for case in cases if case in PAIRS])
    good = verdict(figures) and good
    good = scaling(figures, cores) and good
    ranks(figures, [*main, "memory"])
    return good


def pairs(figures, cases):
    """Tollgate beside itself; good while every ratio is allowed."""
    good = True
    print()
    for case in cases:
        more, less, bar = PAIRS[case]
        for figure in sorted(figure for at, figure, name in figures if (at, name) == (case, more) and figure.startswith(("cpu", "p50"))):
            dearer, cheaper = (figures[case, figure, name] for name in (more, less))
            ratio = dearer / cheaper
            word = "" if bar is None else f", {'holds' if ratio <= bar else 'MISSED'}: at most {bar:.2f}"
            good = good and (bar is None or ratio <= bar)
            print(f"{CASES[case][0]:34}{figure:8}{more} {dearer:.2f}, {less} {cheaper:.2f}: {ratio:.3f}{word}")
    return good


def verdict(figures):
    """The bar: at most 0.55 of Envoy's CPU per request and 1.4 of the bare proxy's; void when the bare proxy is slow itself."""
    own, envoy, bare = (figures.get(("h1", "cpu_us", name)) for name in ("tollgate", "envoy", "bare"))
    if not (own and envoy and bare):
        return True
    if bare / envoy > 0.5:
        print(f"\nvoid: the bare proxy is at {bare / envoy:.2f} of Envoy, above 0.50")
        return False
    good = own / envoy <= 0.55 and own / bare <= 1.4
    print(f"\n{'holds' if good else 'MISSED'}: {own / envoy:.2f} of Envoy (at most 0.55), {own / bare:.2f} of the bare proxy (at most 1.4)")
    plain, trained = (figures.get(("h1", "cpu_us", name)) for name in ("plain", "trained"))
    if plain and trained:
        print(f"built alike: {own / trained:.2f} of the bare proxy where both have a profile, {plain / bare:.2f} where neither has")
    return good


def scaling(figures, cores):
    """What several cores give of one. By throughput only where the threads of the load and of the provider have cores of their own."""
    good = True
    for case in CASES:
        figure = {name: [figures.get((case, of, name)) for of in ("per_s", "cpu_us")] for name in ("tollgate", "one-core")}
        (fast, cheap), (slow, dear) = figure["tollgate"], figure["one-core"]
        if not (fast and slow):
            continue
        gain, worth = fast / slow, cores * dear / cheap
        print(f"\n{CASES[case][0]}: {cores} cores {fast:.0f} a second at {cheap:.2f} us of CPU, one core {slow:.0f} at {dear:.2f}")
        if os.cpu_count() < 3 * cores:
            print(f"void by throughput, {gain:.2f} of one core: the load shares the cores; by CPU per call {worth:.2f} at most (bar {SCALING:.2f})")
        else:
            good = good and gain >= SCALING
            print(f"{'holds' if gain >= SCALING else 'MISSED'}: {gain:.2f} of one core (at least {SCALING:.2f}), by CPU per call {worth:.2f} at most")
    return good


def ranks(figures, cases):
    """For each figure the proxies, best first, each with how many times worse than the best it is."""
    lines, behind = [], 0
    for case in cases:
        title = CASES[case][0] if case in CASES else "memory"
        for figure in sorted({figure for at, figure, _ in figures if at == case}):
            values = {name: figures.get((case, figure, name)) for name in NAMES}
            # Less is better but for throughput. What grew by nothing has no ratio.
            scores = {name: 1 / value if figure == "per_s" else value for name, value in values.items() if value and value > 0}
            order = sorted(scores, key=scores.get)
            if len(order) < 2 or NAMES[0] not in order:
                continue
            first = next(name for name in order if name == NAMES[0] or name in GATEWAYS)
            behind += first != NAMES[0]
            mark = " " if first == NAMES[0] else "<"
            cells = "".join(f"{name:>11} {scores[name] / scores[order[0]]:5.2f}" for name in order)
            lines.append(f"{mark} {title:34}{figure:20}{cells}")
            title = ""
    if not lines:
        return
    print("\nwho is ahead: best first, and how many times worse than the best; < where Envoy or HAProxy is ahead of Tollgate")
    print("\n".join(lines))
    print(f"Tollgate is behind Envoy or HAProxy in {behind} of {len(lines)} figures")
