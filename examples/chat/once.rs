//! One turn for a script: text in, text or lines of JSON out.

use crate::stream::{JsonLines, Plain, Sink, Stop, finish_words, statistics_line};
use crate::{Args, Ended};
use kiln::Model;
use kiln::chat::Piece;
use kiln::session::{Cancel, Finish, Statistics};
use std::error::Error;

/// Says a text and prints what comes of it.
pub fn run(args: &Args, model: &Model, text: &str) -> Result<Ended, Box<dyn Error>> {
    let mut sink: Box<dyn Sink> = if args.json { Box::new(JsonLines) } else { Box::new(Plain) };
    let stop = Stop::new()?;
    let result = answer(args, model, text, &mut *sink, &stop);
    if let (true, Err(error)) = (args.json, &result) {
        JsonLines.error(&error.to_string())?;
    }
    result
}

fn answer(args: &Args, model: &Model, text: &str, sink: &mut dyn Sink, stop: &Stop) -> Result<Ended, Box<dyn Error>> {
    let has_template = args.template.is_some() || model.has_chat_template();
    if args.raw || !has_template {
        if !args.raw && (args.system.is_some() || args.load.is_some()) {
            return Err("the model has no chat template, so there is no conversation: expected --template FILE".into());
        }
        let mut session = model.session();
        let mut reply = session.generate_with(text, args.generate(true))?;
        let cancel = reply.cancel_handle();
        print(&mut reply.by_ref().map(|text| text.map(Piece::Text)), cancel, sink, stop)?;
        return end(args, sink, stop, &reply.statistics(), reply.finish());
    }
    let mut chat = args.chat(model)?.messages(crate::talk::beginning(args)?).start()?;
    let mut reply = chat.say_with(text, args.generate(true))?;
    let cancel = reply.cancel_handle();
    print(&mut reply, cancel, sink, stop)?;
    end(args, sink, stop, &reply.statistics(), reply.finish())
}

/// Prints pieces as they come.
fn print(
    pieces: &mut dyn Iterator<Item = kiln::Result<Piece>>,
    cancel: Cancel,
    sink: &mut dyn Sink,
    stop: &Stop,
) -> Result<(), Box<dyn Error>> {
    let _stopping = stop.stops(cancel);
    for piece in pieces {
        sink.piece(&piece?)?;
    }
    Ok(())
}

fn end(
    args: &Args,
    sink: &mut dyn Sink,
    stop: &Stop,
    statistics: &Statistics,
    finish: Option<Finish>,
) -> Result<Ended, Box<dyn Error>> {
    sink.end(statistics, finish.as_ref())?;
    if !args.json {
        eprintln!("{}: {}", statistics_line(statistics), finish_words(finish.as_ref()));
    }
    Ok(if stop.has_stopped() { Ended::Interrupted } else { Ended::Well })
}
