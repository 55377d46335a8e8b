// grammY with its runner, 500 updates at once by default: one chat's in order, chats side by side. Arguments: URL, token.
// The work and the variables are those of benchmarks/apps/answering.py.
const { Bot } = require("grammy");
const { run, sequentialize } = require("@grammyjs/runner");
const [url, token] = process.argv.slice(2);
const { BENCH_WORK_SECONDS = "0.1", BENCH_SLOW_SECONDS = "60", BENCH_BLOCKING } = process.env;
const seconds = (text) => ({ warm: 0, slow: Number(BENCH_SLOW_SECONDS) })[text.slice(0, 4)] ?? Number(BENCH_WORK_SECONDS);
const bot = new Bot(token, { client: { apiRoot: url } });
bot.use(sequentialize((context) => String(context.chat.id)));
bot.on("message:text", async (context) => {
  const milliseconds = seconds(context.message.text) * 1000;
  if (BENCH_BLOCKING) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
  else await new Promise((done) => setTimeout(done, milliseconds));
  await context.reply(context.message.text);
});
bot.catch((error) => console.log(String(error.error)));
const runner = run(bot);
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => runner.stop().then(() => process.exit(0)));
console.log("receiving");
