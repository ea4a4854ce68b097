// A crawler in Node: eight users with Node's own fetch, which keeps connections, until they are ended.
//
//     twbench exec configs/crawl.toml -- node docs/examples/crawl.mjs

const frontier = process.env.TWBENCH_SITES.split(" ");
const seen = new Set(frontier);
const failed = new Map();
let pages = 0;

async function visit(url) {
  const answer = await fetch(url);
  const page = await answer.text();
  pages += 1;
  for (const [, link] of page.matchAll(/href="([^"]+)"/g)) {
    const next = new URL(link, answer.url).href;
    if (!seen.has(next)) frontier.push(next);
    seen.add(next);
  }
}

async function user() {
  for (;;) {
    const url = frontier.shift();
    if (url === undefined) await new Promise((resolve) => setTimeout(resolve, 10));
    else await visit(url).catch(({ cause }) => failed.set(cause?.code, (failed.get(cause?.code) ?? 0) + 1));
  }
}

process.on("SIGTERM", () => {
  console.log(`${pages} pages`, Object.fromEntries(failed));
  process.exit(0);
});
await Promise.all(Array.from({ length: 8 }, user));
