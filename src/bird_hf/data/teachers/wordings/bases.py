"""The parts that forms of questions are built from: plain templates, and the bases of each kind by style.

{the}, {a}, {name}, {names} and {the_names} are the name with an article or in the plural; {this} are the words that get
the box, {area} those words after "in"; {image} is a word for the image. A base that ends in "!" takes no place such as
"in this image".
"""

from __future__ import annotations

from collections.abc import Mapping

# (the words that get the box, the question). "Where is the X?" is always one of them (docs/decisions.md, decision 10).
PLAIN: Mapping[str, tuple[tuple[str, str], ...]] = {
    "vg": (
        ("", "Where is {the}?"),
        ("", "Where is {the} located in this image?"),
        ("", "Locate {the}."),
        ("", "Find {the} in this image."),
        ("", "Show me {the}."),
        ("", "Point out {the}."),
        ("", "Give the bounding box of {the}."),
        ("", "Can you find {the}?"),
    ),
    "vg_pair": (
        ("", "Where are {the} and {other}?"),
        ("", "Locate {the} and {other}."),
        ("", "Show me {the} and {other}."),
    ),
    "roc": (
        ("this", "What is {this}?"),
        ("this structure", "Name {this}."),
        ("this region", "Which object is in {this}?"),
        ("this object", "What is {this} called?"),
    ),
    "rc": (
        ("this region", "Describe {this}."),
        ("this region", "What do you see in {this}?"),
        ("this structure", "Give a short description of {this}."),
    ),
    "modality": (("", "Which imaging modality is this?"), ("", "What is the modality of this image?")),
    "view": (("", "What does this image show?"), ("", "Describe this image.")),
    "presence": (("", "Is there {a} in this image?"), ("", "Can {a} be seen in this image?")),
    "count": (("", "How many objects are labelled {name}?"), ("", "Count the objects labelled {name}.")),
    "side": (("", "On which side of the patient is {the}?"),),
}

_IMPERATIVE_PAIRS = (
    "Find", "Locate", "Show", "Show me", "Point out", "Point to", "Mark", "Box", "Highlight", "Indicate", "Detect",
    "Look for", "Draw boxes around", "Put boxes on", "Give the positions of", "Give the bounding boxes of",
    "Tell me the positions of", "Frame",
)  # fmt: skip

BASES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "vg": {
        "imperative": (
            "Find {the}", "Locate {the}", "Localise {the}", "Localize {the}", "Show {the}", "Show me {the}",
            "Point out {the}", "Point to {the}", "Mark {the}", "Box {the}", "Draw a box around {the}",
            "Draw a bounding box around {the}", "Put a box on {the}", "Put a box around {the}",
            "Place a rectangle around {the}", "Highlight {the}", "Outline {the} with a box", "Indicate {the}",
            "Identify {the}", "Detect {the}", "Frame {the}", "Look for {the}", "Search for {the}",
            "Give the bounding box of {the}", "Give the box of {the}", "Give the coordinates of {the}",
            "Give me the location of {the}", "Give me the position of {the}", "Return the box of {the}",
            "Tell me where {the} is", "Show me where {the} is", "Say where {the} is", "Determine the position of {the}",
            "Help me find {the}", "Mark all {names}", "Find all {names}", "Find every {name}", "Box each {name}",
            "Draw boxes around all {names}", "Show me {the_names}", "Locate {the_names}", "Point out all {names}",
        ),
        "question": (
            "Where is {the}", "Where's {the}", "Where is {the} located", "Where is {the} situated",
            "Where can I find {the}", "Where can I see {the}", "Where do you see {the}", "Where would I find {the}",
            "Where does {the} lie", "Where exactly is {the}", "In which part of the image is {the}",
            "In what area of the picture is {the}!", "What is the position of {the}", "What is the location of {the}",
            "What are the coordinates of {the}", "What is the bounding box of {the}", "Which area is {the}",
            "Which region is {the}", "Do you know where {the} is", "Can you tell me where {the} is",
            "Can you see where {the} is", "Which box holds {the}", "Where are {the_names}",
            "Where do you see {names}", "Where can I find {the_names}",
        ),
        "telegram": (
            "{name}", "{name} position", "{name} location", "{name} box", "{name} bounding box",
            "{name} bbox",
            "{name} where", "{name} coordinates", "position of {name}", "location of {name}",
            "coordinates of {name}", "box: {name}", "bbox {name}", "box for {name}", "find {name}", "locate {name}",
            "where {name}", "show {name}", "mark {name}", "{name} please", "{name} on this scan",
            "{name} in this picture", "{name} here", "the {name}", "all {names}", "{names}", "{names} position",
        ),
    },
    "vg_pair": {
        "imperative": tuple(f"{verb} {{the}} and {{other}}" for verb in _IMPERATIVE_PAIRS),
        "question": (
            "Where are {the} and {other}", "Where do you see {the} and {other}", "Where can I find {the} and {other}",
            "Where are {the} and {other} located", "What are the positions of {the} and {other}",
        ),
        "telegram": (
            "{name} and {other_name}", "{name}, {other_name}",
            "boxes: {name} and {other_name}",
            "positions of {name} and {other_name}", "{name} and {other_name} please",
        ),
    },
    "roc": {
        "imperative": (
            "Name {this}", "Identify {this}", "Classify {this}", "Label {this}", "Recognise {this}", "Recognize {this}",
            "Tell me what {this} is", "Say what {this} is", "Give the name of {this}", "Give a name for {this}",
            "Give the label of {this}", "Tell me the name of {this}", "State the name of {this}",
        ),
        "question": (
            "What is {this}", "What's {this}", "Which structure is {this}", "Which object is {this}",
            "Which object is in {area}", "What is in {area}", "What is {this} called", "What is the name of {this}",
            "What is the label of {this}", "Which name does {this} have", "What would you call {this}",
            "Do you know what {this} is", "Can you tell me what {this} is", "Can you name {this}",
            "What kind of structure is {this}", "Which label fits {this}", "Which structure is in {area}",
            "What is inside {area}",
        ),
        "telegram": (
            "{this}?", "{this}: name?", "name of {this}", "name for {this}", "label for {this}", "class of {this}",
            "{this} is what?", "what is {this}", "{this} called?", "object in {area}", "structure in {area}",
        ),
    },
    "rc": {
        "imperative": (
            "Describe {this}", "Give a short description of {this}", "Give a description of {this}",
            "Characterise {this}", "Characterize {this}", "Write a sentence about {this}", "Say something about {this}",
            "Tell me about {this}", "Summarise {this}", "Summarize {this}", "Caption {this}", "Comment on {this}",
            "Give some details of {this}", "Describe what is in {area}", "Describe what you see in {area}",
            "Tell me what you see in {area}", "Write a caption for {this}", "Report on {this}",
        ),
        "question": (
            "What do you see in {area}", "What can be seen in {area}", "What is visible in {area}",
            "What can you say about {this}", "How would you describe {this}", "How can {this} be described",
            "What can I see in {area}", "What can you tell me about {this}", "Can you describe {this}",
            "What is there to say about {this}",
        ),
        "telegram": (
            "description of {this}", "{this}: description", "describe {this} briefly", "short description of {this}",
            "caption for {this}", "{this}, details", "details of {this}", "findings in {area}", "summary of {this}",
            "describe {this}",
        ),
    },
    "modality": {
        "imperative": (
            "Name the modality!", "Name the imaging modality of {image}!", "Tell me the modality of {image}!",
            "Identify the imaging modality!", "Give the modality of {image}!", "State the modality!",
            "Say which modality this is!", "Say how {image} was made!", "Tell me what kind of image this is!",
        ),
        "question": (
            "Which imaging modality is this!", "What is the modality of {image}!", "What modality is this!",
            "What kind of image is this!", "What type of image is this!", "What kind of scan is this!",
            "Which kind of picture is this!", "How was {image} made!", "How was {image} taken!",
            "How was {image} acquired!", "With which technique was {image} made!", "Which imaging method is this!",
            "Which imaging technique was used!", "By which modality was {image} made!",
            "Which modality was used for {image}!", "Can you tell the modality!",
        ),
        "telegram": (
            "modality", "imaging modality", "type of image", "image type", "kind of image",
            "which modality",
            "what modality", "kind of scan", "imaging technique", "modality please",
        ),
    },
    "view": {
        "imperative": (
            "Describe {image}!", "Describe what {image} shows!", "Give a short description of {image}!",
            "Summarise {image}!", "Summarize {image}!", "Caption {image}!", "Tell me about {image}!",
            "Explain what {image} shows!", "Say what {image} shows!", "Tell me what is shown in {image}!",
            "Write a caption for {image}!",
        ),
        "question": (
            "What does {image} show!", "What is shown in {image}!", "What is shown here!",
            "What can be seen in {image}!",
            "What do we see in {image}!", "What am I looking at!", "What is in {image}!", "What is this an image of!",
            "What is this a picture of!", "Which part of the body is shown in {image}!", "What do you see in {image}!",
            "How would you describe {image}!",
        ),
        "telegram": (
            "description", "description of {image}", "image description", "caption", "what is shown",
            "body part and view",
            "overview of {image}", "what is in {image}", "describe {image}", "short description of {image}",
        ),
    },
    "presence": {
        "imperative": (
            "Check for {a}", "Check whether {a} is visible", "Say whether {a} is visible", "Tell me if there is {a}",
            "Tell me whether {a} can be seen", "Tell me if you see {a}", "Say if {the} is visible",
            "Tell me whether {the} is present", "Say whether there are any {names}",
        ),
        "question": (
            "Is there {a}", "Is {a} present", "Is {a} visible", "Is {a} shown", "Can {a} be seen", "Can you see {a}",
            "Do you see {a}", "Does {image} show {a}", "Does {image} contain {a}", "Is any {name} visible",
            "Is there any {name}", "Is {the} visible", "Is {the} present", "Is {the} shown", "Can {the} be seen",
            "Can you see {the}", "Do you see {the}", "Is {the} in view!", "Are there any {names}",
            "Do you see any {names}",
            "Are there {names}", "Can you see any {names}",
        ),
        "telegram": (
            "{name} present", "any {name}", "{name} visible",
            "{name} yes or no", "{name}: present or absent", "presence of {name}", "{name} seen?",
            "is {name} there?", "any {names}?", "{names} present?",
        ),
    },
    "count": {
        "imperative": (
            "Count the objects labelled {name}", "Count the objects labeled {name}", "Count the objects called {name}",
            "Count every {name}", "Count the instances of {name}", "Count {the_names}", "Count all {names}",
            "Give the number of {names}", "Tell me how many {names} there are", "Say how many {names} you see",
            "Give the number of objects called {name}", "Tell me the number of objects labelled {name}",
        ),
        "question": (
            "How many objects are labelled {name}", "How many objects are labeled {name}",
            "How many objects are called {name}", "How many objects with the name {name} are there",
            "How many instances of {name} are there", "How many instances of {name} do you see",
            "What is the number of objects labelled {name}", "How many {names} are there",
            "How many {names} do you see",
            "How many {names} can be seen", "How many {names} are visible", "How many {names} does {image} show",
            "What is the number of {names}", "Can you count {the_names}", "How many {names} can you count",
        ),
        "telegram": (
            "number of {names}", "how many {names}", "count {names}", "{names}: how many?",
            "{names} count", "{name} count", "count: {name}", "{name}, number", "number of objects labelled {name}",
            "count of {name}", "{name}: how many?",
        ),
    },
    "side": {
        "imperative": (
            "Name the side of {the}!", "Tell me the side of {the}!", "Say on which side {the} is!",
            "Give the side of the patient on which {the} is!", "Tell me on which side {the} lies!",
            "Say whether {the} is on the left or on the right!", "State the side of {the}!",
        ),
        "question": (
            "On which side of the patient is {the}", "On which side is {the}", "On what side is {the}",
            "Which side is {the} on", "On which side of the body is {the}", "On which side does {the} lie",
            "Is {the} on the left or on the right", "Is {the} on the left or right side of the patient",
            "On which side of the patient do you see {the}", "Which side of the patient is {the} on",
            "Does {the} lie on the left or on the right", "On what side of the patient can {the} be seen",
        ),
        "telegram": (
            "side of {name}", "side of {the}", "{name} side", "{name}: left or right?",
            "which side {name}", "laterality of {name}", "{name} laterality",
            "{name}, which side?", "patient side of {name}",
        ),
    },
}  # fmt: skip
