// grammY with @grammyjs/stream and @grammyjs/auto-retry, as the plug-in's README sets it up. Arguments: URL, token, load.
// The plug-in streams by drafts, so to private chats only. It asks for Node 22; what it needs of it is defined here.
Promise.withResolvers ??= () => {
  const all = {};
  all.promise = new Promise((resolve, reject) => Object.assign(all, { resolve, reject }));
  return all;
};
const { Bot } = require("grammy");
const { autoRetry } = require("@grammyjs/auto-retry");
const { streamApi } = require("@grammyjs/stream");
const [url, token, described] = process.argv.slice(2);
const load = JSON.parse(described);

// The same as benchmarks/stage/streams.py.
const [FIRST_PRIVATE, FIRST_READER, SENTENCE, PARAGRAPH] = [1_000_000, 5_000_000, 12, 60];
const word = (n) =>
  (n === 0 ? "" : n % PARAGRAPH === 0 ? "\n\n" : " ") +
  String(n).padStart(String(load.tokens).length, "0") + (n % SENTENCE === SENTENCE - 1 ? "." : "");

const startedAt = Date.now() / 1000 + 1;
const until = (moment) => {
  const wait = moment - Date.now() / 1000;
  return wait > 0 ? new Promise((resolve) => setTimeout(resolve, wait * 1000)) : undefined;
};
async function* answer() {
  for (let n = 0; n < load.tokens; n++) {
    await until(startedAt + n / load.rate);
    yield word(n);
  }
}

const bot = new Bot(token, { client: { apiRoot: url } });
bot.api.config.use(autoRetry());
const { streamMessage } = streamApi(bot.api.raw);
const lost = (what) => (error) => console.error(`lost ${what}: ${error}`);
async function replies() {
  for (let n = 0; ; n++) {
    await until(startedAt + n * load.reply_seconds);
    const text = `reply ${n} ${Date.now() / 1000}`;
    bot.api.sendMessage(FIRST_READER + n, text).catch(lost(text));
  }
}

console.log(`streaming from ${startedAt}`);
replies();
const streams = [...Array(load.chats - load.groups).keys()].map((n) =>
  streamMessage(FIRST_PRIVATE + n, 256 * (n + 1), answer()).catch(lost(`the answer to ${FIRST_PRIVATE + n}`)));
Promise.all(streams).then(() => console.log("finished")); // it goes on to reply until SIGTERM
