// Telegraf: one message to each of n chats, all at once. Arguments: URL, token, n.
const { Telegram } = require("telegraf");
const [url, token, count] = process.argv.slice(2);
const bot = new Telegram(token, { apiRoot: url });
Promise.allSettled([...Array(Number(count)).keys()].map((n) => bot.sendMessage(1000 + n, `burst ${n}`))).then((all) =>
  console.log(JSON.stringify(all.filter((one) => one.status === "rejected").map((one) => one.reason.name))));
