// grammY: one message to each of n chats, all at once. Arguments: URL, token, n.
const { Bot } = require("grammy");
const [url, token, count] = process.argv.slice(2);
const bot = new Bot(token, { client: { apiRoot: url } });
Promise.allSettled([...Array(Number(count)).keys()].map((n) => bot.api.sendMessage(1000 + n, `burst ${n}`))).then((all) =>
  console.log(JSON.stringify(all.filter((one) => one.status === "rejected").map((one) => one.reason.name))));
