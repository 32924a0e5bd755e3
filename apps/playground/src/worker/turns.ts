// Layer: apps/playground, worker. Whose turn it is: that of the member that has had the fewest, so that members take steps in strict
// alternation; and all stand still while anybody holds them.
// Knows promises. Knows no model and no device.

export class Turns {
  /** Turns that each member has had, in the order of their turns. */
  readonly #had: Map<string, number>;
  /** Members that are ready for their next turn, with what begins it. */
  readonly #waiting = new Map<string, () => void>();
  #active: string | undefined;
  #holds = 0;
  #standstill: (() => void)[] = [];
  #open = false;

  /** @param had turns that each member has had before: one that is behind catches up */
  constructor(had: ReadonlyMap<string, number>) {
    this.#had = new Map(had);
  }

  /** Ends the member's turn and resolves when its next one begins. */
  async enter(member: string): Promise<void> {
    if (this.#active === member) this.#active = undefined;
    if (this.#open || !this.#had.has(member)) return;
    await new Promise<void>((grant) => {
      this.#waiting.set(member, grant);
      this.#advance();
    });
  }

  /** The member takes no more turns. */
  leave(member: string): void {
    this.#had.delete(member);
    if (this.#active === member) this.#active = undefined;
    this.#waiting.get(member)?.();
    this.#waiting.delete(member);
    this.#advance();
  }

  /** Lets everybody through at once from now on, so that they can be stopped. */
  release(): void {
    this.#open = true;
    for (const grant of this.#waiting.values()) grant();
    this.#waiting.clear();
    this.#active = undefined;
    this.#settle();
  }

  /**
   * Resolves once nobody is in a turn; nobody begins one until the function that it gives has been called.
   * @returns lets go; calling it again does nothing
   */
  async hold(): Promise<() => void> {
    this.#holds++;
    await new Promise<void>((resolve) => {
      this.#standstill.push(resolve);
      this.#settle();
    });
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#holds--;
      this.#advance();
    };
  }

  /** Tells those who hold that all stand still. */
  #settle(): void {
    if (this.#active !== undefined) return;
    for (const resolve of this.#standstill.splice(0)) resolve();
  }

  #advance(): void {
    if (this.#active !== undefined) return;
    if (this.#holds > 0) {
      this.#settle();
      return;
    }
    const [next] = [...this.#had].sort(([, a], [, b]) => a - b);
    // Everybody waits for the one whose turn it is, also while it is not ready yet: the models stay in step.
    const grant = next && this.#waiting.get(next[0]);
    if (next === undefined || grant === undefined) return;
    const [member, had] = next;
    this.#waiting.delete(member);
    this.#had.set(member, had + 1);
    this.#active = member;
    grant();
  }
}
