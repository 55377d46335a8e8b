// grammY with its runner: updates of one chat in order, chats side by side; 100 ms of work, one reply. Arguments: URL, token.
// With BENCH_BLOCKING the work keeps the event loop to itself.
const { Bot } = require("grammy");
const { run, sequentialize } = require("@grammyjs/runner");
const [url, token] = process.argv.slice(2);
const bot = new Bot(token, { client: { apiRoot: url } });
bot.use(sequentialize((context) => String(context.chat.id)));
bot.on("message:text", async (context) => {
  if (process.env.BENCH_BLOCKING) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
  else await new Promise((done) => setTimeout(done, 100));
  await context.reply(context.message.text);
});
bot.catch((error) => console.log(String(error.error)));
const runner = run(bot);
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => runner.stop().then(() => process.exit(0)));
console.log("receiving");
