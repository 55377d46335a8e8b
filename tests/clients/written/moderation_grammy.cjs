// A moderation bot: greets newcomers, deletes links and mutes who posts a third one. Environment: API_ROOT, BOT_TOKEN.
const { Bot } = require("grammy");

const bot = new Bot(process.env.BOT_TOKEN, { client: { apiRoot: process.env.API_ROOT } });
const strikes = new Map();
const silent = { can_send_messages: false };

bot.on("message:new_chat_members", (ctx) => ctx.reply(`Welcome, ${ctx.message.new_chat_members[0].first_name}! No links.`));
bot.on("message:entities:url", async (ctx) => {
  const count = (strikes.get(ctx.from.id) ?? 0) + 1;
  strikes.set(ctx.from.id, count);
  await ctx.deleteMessage();
  if (count < 3) return ctx.reply(`Warning ${count} of 2: no links here.`);
  await ctx.restrictChatMember(ctx.from.id, silent, { until_date: Math.floor(Date.now() / 1000) + 3600 });
  return ctx.reply("Muted for an hour.");
});
bot.catch((error) => console.error(error));
bot.start({ allowed_updates: ["message"] });
