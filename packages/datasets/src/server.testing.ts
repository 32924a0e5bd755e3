// Layer: datasets, for tests. A server on this machine alone that answers as told: whole files, ranges, faults, half of a body.
// Knows no data set.
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** How a request for a file is answered, in the order of requests; the last one stays. */
export type Answer =
  | "whole" // 200, with an ETag and ranges
  | "plain" // 200 without ranges, ETag or length
  | { readonly status: number }
  | { readonly stopAfter: number } // the connection ends after so many bytes of the body
  | "other range"
  | "lying length";

export interface Served {
  content: Uint8Array;
  answers?: Answer[];
  headers?: Record<string, string>;
}

export interface TestServer {
  readonly url: string;
  readonly files: Map<string, Served>;
  /** `GET /path range` of each request. */
  readonly log: string[];
  close(): Promise<void>;
}

const etagOf = (content: Uint8Array): string => `"${createHash("md5").update(content).digest("hex")}"`;

function answer(served: Served, request: IncomingMessage, response: ServerResponse): void {
  const { content, answers = ["whole"], headers = {} } = served;
  const how = (answers.length > 1 ? answers.shift() : answers[0]) as Answer;
  if (typeof how === "object" && "status" in how) {
    response.writeHead(how.status).end("no");
    return;
  }
  if (how === "plain") {
    response.writeHead(200, headers).end(content);
    return;
  }
  const etag = etagOf(content);
  const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? "");
  const same = request.headers["if-range"] === etag;
  const start = range && same ? Number(range[1]) : 0;
  const common = { ...headers, etag, "accept-ranges": "bytes" };
  if (start > 0 && start >= content.length) {
    response.writeHead(416, { ...common, "content-range": `bytes */${content.length}` }).end();
    return;
  }
  const shift = how === "other range" && start > 0 ? 1 : 0;
  const body = content.subarray(start);
  const length = how === "lying length" ? body.length + 5 : body.length;
  const lengths = { "content-length": String(length) };
  if (start > 0) {
    const contentRange = `bytes ${start + shift}-${content.length - 1}/${content.length}`;
    response.writeHead(206, { ...common, ...lengths, "content-range": contentRange });
  } else response.writeHead(200, { ...common, ...lengths });
  if (how === "lying length" || (typeof how === "object" && "stopAfter" in how)) {
    const part = typeof how === "object" ? body.subarray(0, how.stopAfter) : body;
    response.write(part, () => setTimeout(() => response.destroy(), 20));
    return;
  }
  response.end(body);
}

export async function testServer(): Promise<TestServer> {
  const files = new Map<string, Served>();
  const log: string[] = [];
  const server: Server = createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? "");
    log.push(`${request.method} ${path}${request.headers.range ? ` ${request.headers.range}` : ""}`);
    const served = files.get(path);
    if (served === undefined) response.writeHead(404).end("not here");
    else answer(served, request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    files,
    log,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}
