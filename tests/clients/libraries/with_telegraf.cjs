// A Telegraf program whose only change is its API root. Arguments: URL, token, chat, crowd. Prints what it saw.
const { Telegram } = require("telegraf");

const [url, token, first, crowdSize] = process.argv.slice(2);
const chat = Number(first);
const picture = Buffer.concat([Buffer.from("\x89PNG", "latin1"), Buffer.alloc(5200, 9)]);
const told = (call) => call.then(() => "nothing", (error) => error.response.description);

(async () => {
  const bot = new Telegram(token, { apiRoot: url });
  const seen = { me: (await bot.getMe()).id };
  const keys = { inline_keyboard: [[{ text: "yes", callback_data: "yes" }]] };
  const message = await bot.sendMessage(chat, "<b>hi</b>", { parse_mode: "HTML", reply_markup: keys });
  seen.text = message.text;
  seen.buttons = message.reply_markup !== undefined;
  const photo = await bot.sendPhoto(chat + 1, { source: picture, filename: "p.png" }, { caption: "a picture" });
  seen.photo = [photo.caption, Boolean(photo.photo.at(-1).file_id)];
  const link = await bot.getFileLink(photo.photo.at(-1).file_id);
  seen.file = (await (await fetch(link)).arrayBuffer()).byteLength;
  const files = [picture, Buffer.concat([picture, picture])];
  const album = await bot.sendMediaGroup(
    chat + 2, files.map((source) => ({ type: "photo", media: { source, filename: "p.png" } })));
  seen.album = album.map((one) => Boolean(one.photo));
  seen.edited = (await bot.editMessageText(chat, message.message_id, undefined, "edited")).text;
  seen.deleted = await bot.deleteMessage(chat, message.message_id);
  seen.action = await bot.sendChatAction(chat + 3, "typing");
  for (const update of await bot.getUpdates(1, 100, 0, undefined))
    if (update.callback_query) seen.answered = await bot.answerCbQuery(update.callback_query.id, "ok");
  seen.errors = [
    await told(bot.sendMessage(chat + 90, "x")),
    await told(bot.sendMessage(chat + 4, "<b>broken", { parse_mode: "HTML" })),
    await told(bot.sendMessage(chat + 5, "x".repeat(5000))),
  ];
  const numbers = [...Array(Number(crowdSize)).keys()];
  const crowd = await Promise.all(numbers.map((n) => bot.sendMessage(chat + 100 + n, `crowd ${n}`)));
  seen.crowd = crowd.map((one, n) => one.chat.id === chat + 100 + n);
  seen.texts = crowd.map((one, n) => one.text === `crowd ${n}`);
  console.log(JSON.stringify(seen));
})();
