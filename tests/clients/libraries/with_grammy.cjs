// A grammY program whose only change is its API root. Arguments: URL, token, chat, crowd. Prints what it saw.
const { Bot, InputFile } = require("grammy");

const [url, token, first, crowdSize] = process.argv.slice(2);
const chat = Number(first);
const picture = Buffer.concat([Buffer.from("\x89PNG", "latin1"), Buffer.alloc(5200, 7)]);
const told = (call) => call.then(() => "nothing", (error) => error.description);

(async () => {
  const bot = new Bot(token, { client: { apiRoot: url } });
  const seen = { me: (await bot.api.getMe()).id };
  const keys = { inline_keyboard: [[{ text: "yes", callback_data: "yes" }]] };
  const message = await bot.api.sendMessage(chat, "<b>hi</b>", { parse_mode: "HTML", reply_markup: keys });
  seen.text = message.text;
  seen.buttons = message.reply_markup !== undefined;
  const photo = await bot.api.sendPhoto(chat + 1, new InputFile(picture, "p.png"), { caption: "a picture" });
  seen.photo = [photo.caption, Boolean(photo.photo.at(-1).file_id)];
  const file = await bot.api.getFile(photo.photo.at(-1).file_id);
  seen.file = (await (await fetch(`${url}/file/bot${token}/${file.file_path}`)).arrayBuffer()).byteLength;
  const files = [picture, Buffer.concat([picture, picture])];
  const album = await bot.api.sendMediaGroup(
    chat + 2, files.map((bytes) => ({ type: "photo", media: new InputFile(bytes, "p.png") })));
  seen.album = album.map((one) => Boolean(one.photo));
  seen.edited = (await bot.api.editMessageText(chat, message.message_id, "edited")).text;
  seen.deleted = await bot.api.deleteMessage(chat, message.message_id);
  seen.action = await bot.api.sendChatAction(chat + 3, "typing");
  for (const update of await bot.api.getUpdates({ timeout: 1 }))
    if (update.callback_query) seen.answered = await bot.api.answerCallbackQuery(update.callback_query.id, { text: "ok" });
  seen.errors = [
    await told(bot.api.sendMessage(chat + 90, "x")),
    await told(bot.api.sendMessage(chat + 4, "<b>broken", { parse_mode: "HTML" })),
    await told(bot.api.sendMessage(chat + 5, "x".repeat(5000))),
  ];
  const numbers = [...Array(Number(crowdSize)).keys()];
  const crowd = await Promise.all(numbers.map((n) => bot.api.sendMessage(chat + 100 + n, `crowd ${n}`)));
  seen.crowd = crowd.map((one, n) => one.chat.id === chat + 100 + n);
  seen.texts = crowd.map((one, n) => one.text === `crowd ${n}`);
  console.log(JSON.stringify(seen));
})();
