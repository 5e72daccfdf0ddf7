"""The wire types of the server, and nothing else: the JSON that clients send and receive.

A client needs this package alone (it imports pydantic, the type of evidence and nothing heavy). Routes, with the types
of their bodies:

    POST   /upload_image           multipart image_file [frame, window_center, window_width] -> UploadedImage
    POST   /ask_question           form or JSON AskRequest                                   -> Answer
    POST   /ask_question/stream    JSON AskRequest                                           -> events, then an Answer
    POST   /ask_questions          JSON AskManyRequest: one image, several questions         -> Answers
    POST   /ask                    multipart image_file, question, [attention_map]           -> Answer
    GET    /images/{id}/questions                                                            -> Suggestions
    GET    /images/{id}/picture                                                              -> PNG bytes, as decoded
    GET    /images/{id}                                                                      -> ImageItem
    GET    /images/{id}/view       frame, plane, window, invert                              -> PNG bytes of a slice
    GET    /images/{id}/values     frame, plane                                              -> the slice's values
    POST   /images/dicomweb        JSON RetrieveRequest                                      -> SeriesUpload
    POST   /series                 multipart files (repeated), or one archive                -> SeriesUpload
    DELETE /images/{id}                                                                      -> 204
    POST   /conversations                                                                    -> Conversation
    GET    /conversations/{id}            [after]                                            -> Conversation
    POST   /conversations/{id}/images     multipart image_file, name                         -> ConversationImage
    POST   /conversations/{id}/questions  JSON ConversationQuestion                          -> ConversationTurn
    GET    /model                                                                            -> ModelInfo
    POST   /jobs                   JSON lines of JobQuestion                                 -> JobInfo
    GET    /jobs                                                                             -> JobList
    GET    /jobs/{id}                                                                        -> JobInfo
    GET    /jobs/{id}/output                                                                 -> JSON lines
    DELETE /jobs/{id}                                                                        -> 204
    GET    /models                                                                           -> ServedModels
    PUT    /models/{name}          LoadModelRequest (role admin)                             -> ServedModelInfo
    POST   /models/{name}/fraction FractionRequest (role admin)                              -> ServedModelInfo
    DELETE /models/{name}          (role admin)                                              -> 204
    GET    /examples                                                                         -> Examples
    GET    /examples/{id}/image                                                              -> JPEG bytes
    GET    /healthz /readyz /metrics

Every error is a `Problem`: ``{"detail": {"code": "unknown_image", "message": "..."}}``. `message` is a sentence for
people, `code` is for programs (`ErrorCode`).
"""
