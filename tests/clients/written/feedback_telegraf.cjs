// A feedback bot: forwards what users write to a group, and copies the group's replies back. Environment: API_ROOT,
// BOT_TOKEN, STAFF.
const { Telegraf } = require("telegraf");

const bot = new Telegraf(process.env.BOT_TOKEN, { telegram: { apiRoot: process.env.API_ROOT } });
const staff = Number(process.env.STAFF);
const writers = new Map();

bot.start((ctx) => ctx.reply("Write to us: we read everything."));
bot.on("message", async (ctx) => {
  if (ctx.chat.id !== staff) {
    const forwarded = await ctx.forwardMessage(staff);
    writers.set(forwarded.message_id, ctx.chat.id);
    return ctx.sendMessage("Thank you, it has been passed on.");
  }
  const writer = writers.get(ctx.message.reply_to_message?.message_id);
  return writer && ctx.telegram.copyMessage(writer, staff, ctx.message.message_id);
});
bot.launch();
