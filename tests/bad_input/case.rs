//! One call, and how it must be answered.

use std::fmt::{Debug, Write};
use std::pin::Pin;

use tonic::{Code, Status};

/// One call that must not go through, or must change nothing.
pub(crate) struct Case {
    pub(crate) what: String,
    call: Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>,
    code: Code,
    word: &'static str,
}

/// A call on a client of the house: `call!(house, controller.delete_volume(request))`.
#[macro_export]
macro_rules! call {
    ($house:expr, $service:ident.$method:ident($request:expr)) => {{
        let mut client = $house.client.clone();
        let request = $request;
        $crate::case::Case::new(stringify!($method), &request.clone(), async move {
            client.$service.$method(request).await.map(drop)
        })
    }};
}

impl Case {
    pub(crate) fn new(
        method: &str,
        request: &impl Debug,
        call: impl Future<Output = Result<(), Status>> + Send + 'static,
    ) -> Self {
        let request: String = format!("{request:?}").chars().take(300).collect();
        Self {
            what: format!("{method} {request}"),
            call: Box::pin(call),
            code: Code::Ok,
            word: "",
        }
    }

    /// With which code it is refused, and a word that its message must hold.
    pub(crate) fn is(self, code: Code, word: &'static str) -> Self {
        Self { code, word, ..self }
    }

    /// Makes the call, and says what is wrong with its answer; nothing, if all is right.
    pub(crate) async fn verdict(self) -> String {
        let mut wrong = String::new();
        let answer = self.call.await;
        let (code, message) = match &answer {
            Ok(()) => (Code::Ok, ""),
            Err(status) => (status.code(), status.message()),
        };
        let shown: String = message.chars().take(400).collect();
        let what = &self.what;
        if code != self.code || !message.contains(self.word) {
            let (wanted, word) = (self.code, self.word);
            let _ = writeln!(
                wrong,
                "{what}\n  wanted {wanted:?} {word:?}\n  got {code:?} {shown}"
            );
        }
        if message.len() > 6000 {
            let _ = writeln!(wrong, "{what}\n  the message has {} bytes", message.len());
        }
        wrong
    }
}
